package oras

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func sampleModels() []File {
	var files []File
	for _, name := range ModelFiles {
		files = append(files, File{name, []byte("bytes of " + name)})
	}
	return files
}

func samplePack(t testing.TB) *Artifact {
	t.Helper()
	a, err := Pack(sampleRelease(), sampleModels())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// sampleDataset writes a dataset directory with the given text in records.arrow.
func sampleDataset(t testing.TB, records string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		SnapshotFile: sampleSnapshot, "exploits.arrow": "exploits", "records.arrow": records, "files.json": "{}",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// The digests below are part of the format: a change here is a change of every
// release that anyone has signed.
func TestPackedBytesArePinned(t *testing.T) {
	a := samplePack(t)
	if got, want := a.Digest.String(), "sha256:ef4d4590723bfc9ac86c54092ed4b7452f6bcb03aa78907268148562f6859b9c"; got != want {
		t.Errorf("release manifest is %s, want %s\n%s", got, want, a.Manifest)
	}
	if got, want := canon.Sum(a.Config).String(), "sha256:cb37bc99cb47f53de5aee9c9dbe9bbb423717443306ac0ce1bc17a1a099c4b49"; got != want {
		t.Errorf("config is %s, want %s\n%s", got, want, a.Config)
	}
	d, err := PackDataset(sampleDataset(t, "records"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := d.Digest.String(), "sha256:4f2a8aceef5fe5028d861bd7c76d179dabf492294c0d861e124aebfb99dfffd7"; got != want {
		t.Errorf("dataset manifest is %s, want %s\n%s", got, want, d.Manifest)
	}
	if d.Snapshot != a.Release.Dataset {
		t.Errorf("dataset digest is %s, want %s", d.Snapshot, a.Release.Dataset)
	}
}

func TestPackDependsOnContentAlone(t *testing.T) {
	want := samplePack(t)
	models := sampleModels()
	slices.Reverse(models)
	got, err := Pack(sampleRelease(), models)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != want.Digest {
		t.Error("the order in which model files are given changes the release")
	}
	for i := range models {
		changed := slices.Clone(models)
		changed[i].Data = append([]byte("x"), changed[i].Data...)
		got, err := Pack(sampleRelease(), changed)
		if err != nil {
			t.Fatal(err)
		}
		if got.Digest == want.Digest {
			t.Errorf("a change of %s does not change the release", changed[i].Name)
		}
	}
}

func TestPackRefusesAnyOtherSetOfFiles(t *testing.T) {
	for name, change := range map[string]func([]File) []File{
		"one missing":   func(f []File) []File { return f[:3] },
		"one more":      func(f []File) []File { return append(f, File{"extra.onnx", []byte("x")}) },
		"one twice":     func(f []File) []File { f[1] = f[0]; return f },
		"other name":    func(f []File) []File { f[2].Name = "../threat_classifier.onnx"; return f },
		"empty":         func(f []File) []File { f[3].Data = nil; return f },
		"over the size": func(f []File) []File { f[3].Data = make([]byte, MaxModel+1); return f },
	} {
		if _, err := Pack(sampleRelease(), change(sampleModels())); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

func TestPackDatasetNamesWhatIsWrong(t *testing.T) {
	dir := sampleDataset(t, "records")
	if err := os.Remove(filepath.Join(dir, "records.arrow")); err != nil {
		t.Fatal(err)
	}
	if _, err := PackDataset(dir); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "records.arrow") {
		t.Errorf("missing file: %v", err)
	}
	dir = sampleDataset(t, "")
	if _, err := PackDataset(dir); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "records.arrow") {
		t.Errorf("empty file: %v", err)
	}
}

func TestChangedDatasetFileIsFoundWhenPushed(t *testing.T) {
	dir := sampleDataset(t, "records")
	d, err := PackDataset(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "records.arrow"), []byte("Records"), 0o666); err != nil {
		t.Fatal(err)
	}
	eachStore(t, func(t *testing.T, s Store) {
		if _, err := PushDataset(context.Background(), s, d); !errors.Is(err, ErrInvalid) {
			t.Errorf("got %v, want ErrInvalid", err)
		}
		if _, err := s.Resolve(context.Background(), DatasetTag(d.Snapshot)); !errors.Is(err, ErrNotFound) {
			t.Errorf("tag after a failed push: %v, want ErrNotFound", err)
		}
	})
}

// rule is the part of JSON Schema that the two public schemas below use.
type rule struct {
	typ        string
	properties map[string]*rule
	required   []string
	closed     bool // additionalProperties: false
	items      *rule
	enum       []string
	min        int // minItems or minLength
	pattern    *regexp.Regexp
	values     *rule // additionalProperties: a schema
}

func (r *rule) check(at string, v any) error {
	switch v := v.(type) {
	case map[string]any:
		if r.typ != "object" {
			return fmt.Errorf("%s is an object, want %s", at, r.typ)
		}
		for _, name := range r.required {
			if _, ok := v[name]; !ok {
				return fmt.Errorf("%s lacks %s", at, name)
			}
		}
		for name, x := range v {
			p := r.properties[name]
			if p == nil {
				p = r.values
			}
			if p == nil && r.closed {
				return fmt.Errorf("%s has an unknown member %s", at, name)
			}
			if p != nil {
				if err := p.check(at+"."+name, x); err != nil {
					return err
				}
			}
		}
	case []any:
		if r.typ != "array" || len(v) < r.min {
			return fmt.Errorf("%s is an array of %d, want %s of %d at least", at, len(v), r.typ, r.min)
		}
		for i, x := range v {
			if err := r.items.check(fmt.Sprintf("%s[%d]", at, i), x); err != nil {
				return err
			}
		}
	case string:
		switch {
		case r.typ != "string" || len(v) < r.min:
			return fmt.Errorf("%s is the string %q, want %s of %d at least", at, v, r.typ, r.min)
		case r.enum != nil && !slices.Contains(r.enum, v):
			return fmt.Errorf("%s is %q, want one of %q", at, v, r.enum)
		case r.pattern != nil && !r.pattern.MatchString(v):
			return fmt.Errorf("%s is %q, want %s", at, v, r.pattern)
		}
	case float64:
		if r.typ != "integer" || v != float64(int64(v)) {
			return fmt.Errorf("%s is the number %v, want %s", at, v, r.typ)
		}
	default:
		return fmt.Errorf("%s has an unexpected type", at)
	}
	return nil
}

func (r *rule) checkJSON(t *testing.T, b []byte) error {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return r.check("$", v)
}

var (
	text     = &rule{typ: "string"}
	texts    = &rule{typ: "array", items: text}
	mimeRule = &rule{typ: "string", pattern: regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$`)}
	digests  = &rule{typ: "string", pattern: regexp.MustCompile(`^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$`)}
	strs     = &rule{typ: "object", values: text}

	// modelPackConfig is what the public JSON Schema of the CNCF ModelPack config
	// (github.com/modelpack/model-spec, schema/config-schema.json) asks for.
	modelPackConfig = &rule{typ: "object", closed: true, required: []string{"descriptor", "config", "modelfs"}, properties: map[string]*rule{
		"descriptor": {typ: "object", closed: true, properties: map[string]*rule{
			"createdAt": text, "authors": texts, "family": text, "name": {typ: "string", min: 1}, "docURL": text, "sourceURL": text,
			"datasetsURL": texts, "version": text, "revision": text, "vendor": text, "licenses": texts, "title": text, "description": text,
		}},
		"config": {typ: "object", closed: true, properties: map[string]*rule{
			"architecture": text, "format": text, "paramSize": text, "precision": text, "quantization": text,
		}},
		"modelfs": {typ: "object", closed: true, required: []string{"type", "diffIds"}, properties: map[string]*rule{
			"type":    {typ: "string", enum: []string{"layers"}},
			"diffIds": {typ: "array", min: 1, items: digests},
		}},
	}}

	ociDescriptor = &rule{typ: "object", required: []string{"mediaType", "size", "digest"}, properties: map[string]*rule{
		"mediaType": mimeRule, "size": {typ: "integer"}, "digest": digests, "artifactType": mimeRule, "annotations": strs,
	}}

	// ociManifest is what the JSON Schema of the OCI image specification 1.1 asks for.
	ociManifest = &rule{typ: "object", required: []string{"schemaVersion", "config", "layers"}, properties: map[string]*rule{
		"schemaVersion": {typ: "integer"}, "mediaType": mimeRule, "artifactType": mimeRule, "config": ociDescriptor, "subject": ociDescriptor,
		"layers": {typ: "array", min: 1, items: ociDescriptor}, "annotations": strs,
	}}
)

func TestDocumentsFollowThePublicSchemas(t *testing.T) {
	a := samplePack(t)
	if err := modelPackConfig.checkJSON(t, a.Config); err != nil {
		t.Errorf("ModelPack config: %v", err)
	}
	if bytes.Contains(a.Config, []byte("createdAt")) {
		t.Error("ModelPack config has a time in it")
	}
	d, err := PackDataset(sampleDataset(t, "records"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range [][]byte{a.Manifest, d.Manifest} {
		if err := ociManifest.checkJSON(t, m); err != nil {
			t.Errorf("OCI manifest: %v", err)
		}
	}
	// The rules bite.
	for _, change := range [][2]string{{`"type":"layers"`, `"type":"files"`}, {`"name":"web"`, `"name":""`}, {`"diffIds"`, `"diff_ids"`}, {`"family"`, `"familie"`}} {
		bad := bytes.Replace(a.Config, []byte(change[0]), []byte(change[1]), 1)
		if err := modelPackConfig.checkJSON(t, bad); err == nil {
			t.Errorf("%s instead of %s passes the schema", change[1], change[0])
		}
	}
}

func FuzzManifest(f *testing.F) {
	a := samplePack(f)
	f.Add(a.Manifest)
	d, err := PackDataset(sampleDataset(f, "records"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d.Manifest)
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"` + TypeIndex + `","manifests":[{"mediaType":"a/b","digest":"sha512:00","size":1},{}]}`))
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"` + TypeManifest + `","config":{},"layers":[{"size":-1}],"manifests":[]}`))
	classed := func(t *testing.T, err error) {
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("error without class: %v", err)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := checkRelease(b)
		classed(t, err)
		if err == nil {
			again, err := canon.Marshal(m)
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("accepted manifest has a second form:\n%s\n%s %v", b, again, err)
			}
		}
		m, err = checkDataset(b)
		classed(t, err)
		if err == nil {
			again, err := canon.Marshal(m)
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("accepted manifest has a second form:\n%s\n%s %v", b, again, err)
			}
		}
		_, err = decodeIndex(b)
		classed(t, err)
		_, _, err = bundleLayer(b, canon.Digest{})
		classed(t, err)
		_, err = manifestDescriptor(b)
		classed(t, err)
	})
}
