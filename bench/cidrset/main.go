// Command cidrset measures the allocator of Kubernetes' node IPAM: 100,000 node ranges from one pool. It prints samples as the
// programs of ../core do.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"

	"k8s.io/kubernetes/pkg/controller/nodeipam/ipam/cidrset"
)

const (
	ranges  = 100_000
	samples = 3
)

type sample struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Work  string  `json:"work"`
}

func main() {
	_, pool, err := net.ParseCIDR("10.0.0.0/8")
	if err != nil {
		fail(err)
	}
	out := json.NewEncoder(os.Stdout)
	// The first one is not measured, as in ../core.
	for number := range samples + 1 {
		start := time.Now()
		given, err := allocate(pool)
		took := time.Since(start)
		if err != nil {
			fail(err)
		}
		if number == 0 {
			continue
		}
		line := sample{"100,000 node ranges from one pool", took.Seconds(), "s", fmt.Sprintf("%d ranges", len(given))}
		if err := out.Encode(line); err != nil {
			fail(err)
		}
	}
}

func allocate(pool *net.IPNet) ([]*net.IPNet, error) {
	set, err := cidrset.NewCIDRSet(pool, 27)
	if err != nil {
		return nil, err
	}
	given := make([]*net.IPNet, 0, ranges)
	for range ranges {
		next, err := set.AllocateNext()
		if err != nil {
			return nil, err
		}
		given = append(given, next)
	}
	return given, nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "cidrset:", err)
	os.Exit(1)
}
