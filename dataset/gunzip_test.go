package dataset

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func packed(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpacked(in io.Reader) (string, error) {
	r, err := unpack(in)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), err
}

func TestGzipIsUnpackedAndAllElseLeftAlone(t *testing.T) {
	both := append(packed(t, "one\n"), packed(t, "two\n")...)
	for name, c := range map[string]struct{ in, want string }{
		"a text":          {"one\ntwo\n", "one\ntwo\n"},
		"nothing":         {"", ""},
		"two bytes":       {"\x1f\x8b", "\x1f\x8b"},
		"another method":  {"\x1f\x8b\x07x", "\x1f\x8b\x07x"},
		"gzip":            {string(packed(t, "one\n")), "one\n"},
		"gzip of nothing": {string(packed(t, "")), ""},
		"several members": {string(both), "one\ntwo\n"},
	} {
		for how, r := range map[string]io.Reader{
			"whole": strings.NewReader(c.in), "by bytes": iotest.OneByteReader(strings.NewReader(c.in)), "with EOF": iotest.DataErrReader(strings.NewReader(c.in)),
		} {
			if got, err := unpacked(r); got != c.want || err != nil {
				t.Errorf("%s, %s: %q, %v", name, how, got, err)
			}
		}
	}
	broken := errors.New("broken disk")
	if _, err := unpacked(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("a read error: %v", err)
	}
}

func TestDamagedGzipIsAnError(t *testing.T) {
	b := packed(t, strings.Repeat("some text of ordinary length\n", 500))
	flipped := bytes.Clone(b)
	flipped[len(b)-6]++ // of the checksum
	for name, in := range map[string][]byte{
		"cut in the header": b[:5], "cut in the body": b[:len(b)/2], "cut in the trailer": b[:len(b)-3],
		"flipped": flipped, "with a tail": append(bytes.Clone(b), "tail"...),
	} {
		if _, err := unpacked(bytes.NewReader(in)); err == nil || !strings.Contains(err.Error(), "unpacking") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGzipBombsAreRefused(t *testing.T) {
	bomb := packed(t, strings.Repeat("0", freeUnpacked*3/2))
	n, err := 0, error(nil)
	r, err := unpack(bytes.NewReader(bomb))
	for buf := make([]byte, 64<<10); err == nil; {
		var k int
		k, err = r.Read(buf)
		n += k
	}
	if !errors.Is(err, ErrUnsupported) || n > freeUnpacked+maxUnpackedRatio*len(bomb) {
		t.Errorf("%d bytes out of %d, then %v", n, len(bomb), err)
	}
	small := packed(t, strings.Repeat("0", freeUnpacked/4))
	if got, err := unpacked(bytes.NewReader(small)); err != nil || len(got) != freeUnpacked/4 {
		t.Errorf("within what is free: %d bytes, %v", len(got), err)
	}
	r, err = unpack(bytes.NewReader(packed(t, "0123456789")))
	if err != nil {
		t.Fatal(err)
	}
	r.(*gunzip).limit = 9
	if _, err := io.ReadAll(r); !errors.Is(err, ErrUnsupported) {
		t.Errorf("beyond the limit of bytes: %v", err)
	}
}

func TestPackedInputsGiveTheSameSnapshot(t *testing.T) {
	dir := t.TempDir()
	files := map[Source]string{
		ExploitDB:  header17 + row17(4, "t"),
		"requests": `{"edb_id":4,"method":"GET","url":"/a?b"}` + "\n",
		"targets":  "/x?y\r\n/z\r\n",
		"access":   `192.0.2.1 - - [07/Mar/2024:16:05:49 +0000] "GET /a HTTP/1.1" 200 5` + "\n",
		"labelled": "payload,length,attack_type,label\na,1,norm,norm\n",
	}
	var plain, zipped []Input
	for _, s := range Sources() {
		text, ok := files[s]
		if !ok {
			continue
		}
		plain = append(plain, Input{Source: s, Path: write(t, filepath.Join(dir, string(s)), text)})
		zipped = append(zipped, Input{Source: s, Path: write(t, filepath.Join(dir, string(s)+".gz"), string(packed(t, text)))})
	}
	one, err := Build(context.Background(), Config{Inputs: plain}, filepath.Join(dir, "one"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := Build(context.Background(), Config{Inputs: zipped}, filepath.Join(dir, "two"))
	if err != nil {
		t.Fatal(err)
	}
	if one.Dataset != two.Dataset {
		t.Errorf("packed inputs give %s, plain ones %s", two.Dataset, one.Dataset)
	}
	for i, in := range two.Inputs {
		file := packed(t, files[in.Input.Source])
		if in.Digest != canon.Sum(file) || in.Size != int64(len(file)) {
			t.Errorf("%s: digest %s and size %d are not those of the file as it is", in.Path, in.Digest, in.Size)
		}
		if got, want := in.Report, one.Inputs[i].Report; got.Rows != want.Rows || got.Kept != want.Kept {
			t.Errorf("%s: %+v, plain %+v", in.Path, got, want)
		}
	}
	cut := packed(t, strings.Repeat("/a?b\n", 1000))
	broken := Input{Source: "targets", Path: write(t, filepath.Join(dir, "cut.gz"), string(cut[:len(cut)-9]))}
	if _, err := Build(context.Background(), Config{Inputs: []Input{broken}}, filepath.Join(dir, "three")); err == nil || !strings.Contains(err.Error(), "cut.gz") {
		t.Errorf("half a file: %v", err)
	}
}
