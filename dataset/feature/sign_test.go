package feature

import (
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

func TestSignsTellAttacksFromWhatAnybodyMightSend(t *testing.T) {
	config, err := DefaultConfig().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	x, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	v := make([]float32, Dim)
	for payload, want := range map[string]bool{
		"/index.php?id=1'": true, "/a?page=../../etc/passwd": true, "/a?q=%3Cscript%3E": true, "/x?cmd=a|b": true,
		"/a?f=http://evil.example/c99.txt": true, "/news.asp?id=-1+union+select+1,2": true,
		"/": false, "/index.php?act=login": false, "/cgi-bin/test.cgi?id=6200": false, "/a.php?id=[SQL]": false,
		"/search?filter[name]=x&page=2": false, "": false,
	} {
		x.Vector(v, &record.Record{Time: record.NoTime, Payload: payload}, nil)
		if got := Signs(v); got != want {
			t.Errorf("%q: %t, want %t", payload, got, want)
		}
	}
}
