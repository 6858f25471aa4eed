{{/* Labels of every object. Helm adds its own. */}}
{{- define "tieline.labels" -}}
app.kubernetes.io/part-of: tieline
{{- end }}

{{/* Labels that select the pods of a component: never changed, because a workload's selector cannot be. */}}
{{- define "tieline.selector" -}}
app.kubernetes.io/name: tieline
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* The image, by digest where one is given. */}}
{{- define "tieline.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Where the API server is, when not at its ClusterIP. */}}
{{- define "tieline.api" -}}
{{- with .Values.kubernetesApi }}{{ if .host -}}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .port | quote }}
{{- end }}{{ end }}
{{- end }}

{{/* Address that a component serves its metrics and probes on: (list context port hostNetwork) */}}
{{- define "tieline.address" -}}
{{- $context := index . 0 -}}
{{- $loopback := and (index . 2) (not $context.Values.metrics.expose) -}}
{{ ternary "127.0.0.1" "0.0.0.0" $loopback }}:{{ index . 1 }}
{{- end }}

{{/* A probe: (dict path port hostNetwork) */}}
{{- define "tieline.probe" -}}
httpGet:
  path: {{ .path }}
  port: {{ .port }}
  {{- if .hostNetwork }}
  host: 127.0.0.1
  {{- end }}
{{- end }}

{{/* What an agent's container needs of the host, and nothing else. */}}
{{- define "tieline.hostSecurity" -}}
runAsUser: 0
runAsGroup: 0
readOnlyRootFilesystem: true
{{- if .Values.agent.privileged }}
privileged: true
{{- else }}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
  add: [NET_ADMIN]
{{- end }}
{{- end }}

{{- define "tieline.unprivileged" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
{{- end }}

{{/* Alike for the agent and for what cleans up after it. */}}
{{- define "tieline.agentEnvironment" -}}
- name: TIELINE_BACKEND
  value: {{ .Values.agent.backend }}
- name: TIELINE_PORT
  value: {{ .Values.agent.port | quote }}
- name: TIELINE_FWMARK
  value: {{ .Values.agent.fwmark | quote }}
{{- with .Values.agent.underlay }}
- name: TIELINE_UNDERLAY
  value: {{ join "," . | quote }}
{{- end }}
- name: TIELINE_LOG_FORMAT
  value: {{ .Values.logFormat }}
- name: TIELINE_LOG
  value: {{ .Values.agent.log | quote }}
{{- end }}

{{- define "tieline.hostMounts" -}}
# A container sees /proc/sys read-only; this part of the host's is what the agent may write.
- {name: sysctls, mountPath: /host/proc/sys/net}
# The embedded WireGuard's devices. The folder, because the device may appear later.
- {name: tun, mountPath: /dev/net}
{{- end }}

{{- define "tieline.hostVolumes" -}}
- name: sysctls
  hostPath: {path: /proc/sys/net, type: Directory}
- name: tun
  hostPath: {path: /dev/net, type: ""}
{{- end }}

{{/* The host's folder of systemd units. All of /etc, because a mount of what does not exist would make it. */}}
{{- define "tieline.unitsEnvironment" -}}
- name: TIELINE_SYSTEMD_UNITS
  value: /host/etc/systemd/system
{{- end }}

{{- define "tieline.unitsMount" -}}
- {name: etc, mountPath: /host/etc}
{{- end }}

{{- define "tieline.unitsVolume" -}}
- name: etc
  hostPath: {path: /etc, type: Directory}
{{- end }}
