package oras

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func TestChannelIsReplacedAndReadBack(t *testing.T) {
	ctx := context.Background()
	eachStore(t, func(t *testing.T, s Store) {
		if _, _, err := GetChannel(ctx, s, "stable"); !errors.Is(err, ErrNotFound) {
			t.Fatalf("no channel: %v", err)
		}
		seen := map[canon.Digest]string{}
		for _, text := range []string{"one", "two", "two"} { // the same again is the same manifest
			d, err := PutChannel(ctx, s, "stable", sampleBundle(text))
			if err != nil {
				t.Fatal(err)
			}
			b, got, err := GetChannel(ctx, s, "stable")
			if err != nil || !bytes.Equal(b, sampleBundle(text)) || got.Digest != d.Digest {
				t.Fatalf("%s: got %q, %+v, %v", text, b, got, err)
			}
			seen[d.Digest] = text
		}
		if len(seen) != 2 {
			t.Errorf("%d manifests of two bundles", len(seen))
		}
		if _, _, err := GetChannel(ctx, s, "other"); !errors.Is(err, ErrNotFound) {
			t.Errorf("another channel: %v", err)
		}
	})
}

func TestPutChannelRefusesWhatIsNone(t *testing.T) {
	s := newLayout(t)
	for name, b := range map[string][]byte{"text": []byte("x"), "too long": append(sampleBundle("x"), bytes.Repeat([]byte(" "), MaxBundle)...), "another type": []byte(`{"mediaType":"a/b"}`)} {
		if _, err := PutChannel(context.Background(), s, "stable", b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"a/b", "a b", strings.Repeat("x", 200)} {
		if _, err := PutChannel(context.Background(), s, name, sampleBundle("x")); !errors.Is(err, ErrInvalid) {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestChannelThatAnotherWriterSetMeanwhileIsNotTakenForOurs(t *testing.T) {
	ctx := context.Background()
	inner := newRegistry(true)
	var theirs http.HandlerFunc
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(w, r)
		if f := theirs; f != nil && r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/"+ChannelTag("stable")) {
			theirs = nil
			f(w, r)
		}
	}), testOptions)
	if _, err := PutChannel(ctx, s, "stable", sampleBundle("one")); err != nil {
		t.Fatal(err)
	}
	_, other, err := packChannel(sampleBundle("theirs"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := PutChannel(ctx, s, "theirs", sampleBundle("theirs")); err != nil {
		t.Fatal(err)
	}
	theirs = func(_ http.ResponseWriter, r *http.Request) {
		again := r.Clone(ctx)
		again.Body = nopBody{bytes.NewReader(other)}
		again.ContentLength = int64(len(other))
		inner.ServeHTTP(&discardAnswer{h: http.Header{}}, again)
	}
	if _, err := PutChannel(ctx, s, "stable", sampleBundle("two")); !errors.Is(err, ErrExists) {
		t.Errorf("got %v", err)
	}
	if b, _, err := GetChannel(ctx, s, "stable"); err != nil || !bytes.Equal(b, sampleBundle("theirs")) {
		t.Errorf("%q, %v", b, err)
	}
}

type nopBody struct{ *bytes.Reader }

func (nopBody) Close() error { return nil }

type discardAnswer struct{ h http.Header }

func (d *discardAnswer) Header() http.Header         { return d.h }
func (d *discardAnswer) Write(p []byte) (int, error) { return len(p), nil }
func (d *discardAnswer) WriteHeader(int)             {}

// Ten signers at once, each with a connection of its own, in a registry
// without the referrers API: nobody's statement may be lost.
func TestTenSignersAtOnceLoseNoStatement(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	const signers = 10
	for name, h := range map[string]http.Handler{"fallback tag": newRegistry(false), "referrers API": newRegistry(true)} {
		opt := testOptions
		opt.pause = 400 * time.Millisecond // longer than any writer is held up on a busy machine
		// Some writes take their time, so that they overwrite what others had
		// read back already.
		var writes atomic.Int32
		slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, referrersTag(a.Digest)) {
				time.Sleep(time.Duration(writes.Add(1)%3) * 10 * time.Millisecond)
			}
			h.ServeHTTP(w, r)
		})
		first := serve(t, slow, opt)
		push(t, first, a)
		stores := []Store{first}
		for len(stores) < signers {
			s, err := Open(ctx, Ref{Repository: strings.TrimPrefix(first.String(), "oci://")}, withWrite(opt))
			if err != nil {
				t.Fatal(err)
			}
			stores = append(stores, s)
		}
		var wg sync.WaitGroup
		for i, s := range stores {
			wg.Go(func() {
				if _, err := AttachBundle(ctx, s, a.Descriptor(), sampleBundle(fmt.Sprint(i)), predicate, "", created); err != nil {
					t.Errorf("%s: signer %d: %v", name, i, err)
				}
			})
		}
		wg.Wait()
		found, err := Bundles(ctx, first, a.Digest)
		if err != nil || len(found.Bundles) != signers || !found.Complete {
			t.Errorf("%s: %d statements of %d, %v", name, len(found.Bundles), signers, err)
		}
	}
}

func withWrite(o Options) Options {
	o.Write = true
	return o
}

func TestExclusiveOnALayoutIsOneAfterTheOther(t *testing.T) {
	ctx := context.Background()
	s := newLayout(t)
	again, err := Open(ctx, Ref{Layout: layoutDir(s)}, Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	var inside, runs atomic.Int32
	var wg sync.WaitGroup
	for i := range 10 {
		on := s
		if i%2 == 1 {
			on = again
		}
		wg.Go(func() {
			err := Exclusive(ctx, on, func() error {
				if inside.Add(1) != 1 {
					t.Error("two at once")
				}
				runs.Add(1)
				_, err := PutChannel(ctx, on, "stable", sampleBundle(fmt.Sprint(i)))
				inside.Add(-1)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if runs.Load() != 10 {
		t.Errorf("%d ran", runs.Load())
	}

	held, release := make(chan bool), make(chan bool)
	go Exclusive(ctx, s, func() error { held <- true; <-release; return nil })
	<-held
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := Exclusive(short, again, func() error { t.Error("ran all the same"); return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting was not ended: %v", err)
	}
	close(release)
	if err := Exclusive(ctx, again, func() error { return nil }); err != nil {
		t.Error(err)
	}
	failed := errors.New("no")
	if err := Exclusive(ctx, s, func() error { return failed }); err != failed {
		t.Errorf("the error of what ran is lost: %v", err)
	}
}
