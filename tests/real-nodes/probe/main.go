// Command probe is the test peer inside pods: static, without a shell beside it.
//
//	probe serve ADDRESS          HTTP: answers with its node, its pod and the client's address, one JSON object
//	probe get URL [COUNT]        asks COUNT times over fresh connections, prints each answer; fails if one failed
//	probe connect HOST:PORT      fails unless a TCP connection is accepted
//	probe knock HOST:PORT        sends UDP datagrams for ever, ten a second, whatever becomes of them
//	probe lookup NAME            the addresses of a name, one a line
//	probe pause                  sleeps until it is told to end, reaping what becomes its child
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const patience = 3 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 2 && args[0] == "get":
		return get(args[1], 1)
	case len(args) == 3 && args[0] == "get":
		count, err := strconv.ParseUint(args[2], 10, 16)
		if err != nil {
			return err
		}
		return get(args[1], int(count))
	case len(args) == 2 && args[0] == "connect":
		connection, err := net.DialTimeout("tcp", args[1], patience)
		if err != nil {
			return err
		}
		return connection.Close()
	case len(args) == 2 && args[0] == "knock":
		return knock(args[1])
	case len(args) == 2 && args[0] == "lookup":
		return lookup(args[1])
	case len(args) == 1 && args[0] == "pause":
		return pause()
	}
	return errors.New("usage: serve ADDRESS | get URL [COUNT] | connect HOST:PORT | knock HOST:PORT | lookup NAME | pause")
}

// answer is what a client is told; tests parse it.
type answer struct {
	Node   string `json:"node"`
	Pod    string `json:"pod"`
	Client string `json:"client"`
}

func serve(address string) error {
	node, pod := os.Getenv("NODE"), os.Getenv("POD")
	server := http.Server{
		Addr:              address,
		ReadHeaderTimeout: patience,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			client, _, err := net.SplitHostPort(r.RemoteAddr)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			// A client that went away reads no error either.
			_ = json.NewEncoder(w).Encode(answer{Node: node, Pod: pod, Client: client})
		}),
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	fmt.Printf("%s serves on %s\n", pod, address)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func get(url string, count int) error {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	for range count {
		response, err := client.Get(url)
		if err != nil {
			return err
		}
		_, err = io.Copy(os.Stdout, response.Body)
		_ = response.Body.Close()
		if err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, response.Status)
		}
	}
	return nil
}

func knock(address string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	for ctx.Err() == nil {
		// A socket each time, so that every datagram is a new connection for the node's firewall. Refusals are what is hoped for.
		if connection, err := net.Dial("udp", address); err == nil {
			_, _ = connection.Write([]byte("knock"))
			_ = connection.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

func lookup(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	addresses, err := (&net.Resolver{PreferGo: true}).LookupHost(ctx, name)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		fmt.Println(address)
	}
	return nil
}

func pause() error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return nil
		}
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if pid <= 0 || err != nil {
				break
			}
		}
	}
	return nil
}
