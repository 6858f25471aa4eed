// The test peer inside pods, and the process that holds a pod's namespaces. It needs nothing but Go's own library.
module tieline.dev/tests/real-nodes/probe

go 1.26.0
