package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/agent"
)

// BenchmarkScore asks over a loopback connection, from as many clients as
// there are processors, and so measures client and server together. Rows are of
// several forms and addresses.
func BenchmarkScore(b *testing.B) {
	p, err := publisher()
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	policy := dir + "/policy.yaml"
	writePolicy(b, policy, p.policy)
	s := New(Options{Agent: agent.Open(dir + "/state"), From: p.refs[:1], Policy: policy, Interval: time.Hour})
	if r := s.Sync(context.Background()); r.Result != ResultInstalled {
		b.Fatalf("%+v", r)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, Listener{Listener: l}) }()
	defer func() { stop(); <-done }()
	targets := []string{
		"GET /index.html", "GET /item.php?id=1' OR '1'='1", "GET /search?q=%3Cscript%3Ealert(1)%3C/script%3E&page=2", "POST /login.php user=admin&pass=admin",
		"GET /../../../../etc/passwd", "GET /static/css/main.css?v=3.2.1", "GET /cgi-bin/test.cgi?cmd=;cat%20/etc/passwd", "GET /api/v1/users/42/orders?limit=50&sort=desc",
	}
	for _, size := range []int{1, 100} {
		var body bytes.Buffer
		for i := range size {
			fmt.Fprintf(&body, `{"timestamp":"2026-01-10T08:%02d:%02dZ","src_ip":"198.51.100.%d","details":"%s"}`+"\n", i/60, i%60, i%50, targets[i%len(targets)])
		}
		b.Run(fmt.Sprintf("rows=%d", size), func(b *testing.B) {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r, err := client.Post("http://"+l.Addr().String()+"/v1/score", "application/x-ndjson", bytes.NewReader(body.Bytes()))
					if err != nil {
						b.Error(err)
						return
					}
					if _, err := io.Copy(io.Discard, r.Body); err != nil || r.StatusCode != 200 {
						b.Error(r.StatusCode, err)
					}
					r.Body.Close()
				}
			})
			b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
