package oras

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite testdata/vectors")

const vectorDir = "testdata/vectors"

// vector is one file of testdata/vectors; FORMAT.md §9 describes them.
type vector struct {
	number int
	name   string
	read   string // release DIGEST, dataset NAME, bundles DIGEST, channel NAME
	reason string // part of the message; "" for vectors that are to be read
	blobs  map[canon.Digest][]byte
	index  []entry
}

func (v *vector) filename() string { return fmt.Sprintf("%02d-%s.txtar", v.number, v.name) }

// put stores b under its digest and returns its descriptor.
func (v *vector) put(mediaType string, b []byte, title string) Descriptor {
	d := describe(mediaType, b, title)
	v.blobs[d.Digest] = b
	return d
}

// release adds the sample release after its manifest was changed, and reads it.
func (v *vector) release(a *Artifact, change func(m *manifest)) {
	for _, b := range [][]byte{a.Config, a.ReleaseJSON, a.Models[0].Data, a.Models[1].Data, a.Models[2].Data, a.Models[3].Data} {
		v.put("", b, "")
	}
	m, err := decodeManifest(a.Manifest)
	if err != nil {
		panic(err)
	}
	if change != nil {
		change(&m)
	}
	v.releaseBytes(mustMarshal(m))
}

func (v *vector) releaseBytes(b []byte) {
	v.read = "release " + v.put("", b, "").Digest.String()
}

func mustMarshal(x any) []byte {
	b, err := canon.Marshal(x)
	if err != nil {
		panic(err)
	}
	return b
}

// withReleaseJSON is a release whose release.json was changed as text.
func (v *vector) withReleaseJSON(a *Artifact, old, new string) {
	text := strings.Replace(string(a.ReleaseJSON), old, new, 1)
	if text == string(a.ReleaseJSON) {
		panic("nothing replaced: " + old)
	}
	v.release(a, func(m *manifest) {
		l := v.put(typeReleaseJSON, []byte(text), ReleaseFile)
		l.Annotations[annotationFilepath] = ReleaseFile
		m.Layers[4] = l
	})
}

// dataset adds the sample dataset after its manifest was changed, and reads it.
func (v *vector) dataset(change func(m *manifest)) {
	m := manifest{SchemaVersion: 2, MediaType: TypeManifest, ArtifactType: TypeDataset}
	m.Config = v.put(typeSnapshot, []byte(sampleSnapshot), SnapshotFile)
	for i, text := range []string{"exploits", "records", "{}"} {
		mediaType, _ := datasetLayer(DatasetFiles[i])
		m.Layers = append(m.Layers, v.put(mediaType, []byte(text), DatasetFiles[i]))
	}
	if change != nil {
		change(&m)
	}
	v.read = "dataset " + v.put("", mustMarshal(m), "").Digest.String()
}

// bundle adds the sample release with one referrer, and reads its bundles.
func (v *vector) bundle(a *Artifact, change func(m *manifest)) {
	v.release(a, nil)
	v.read = "bundles " + a.Digest.String()
	subject := a.Descriptor()
	subject.ArtifactType = ""
	m := manifest{SchemaVersion: 2, MediaType: TypeManifest, ArtifactType: TypeBundle, Subject: &subject,
		Config: v.put(typeEmpty, []byte(emptyJSON), ""), Layers: []Descriptor{v.put(TypeBundle, sampleBundle("x"), "")}}
	if change != nil {
		change(&m)
	}
	d := v.put(TypeManifest, mustMarshal(m), "")
	v.index = []entry{{Descriptor: d}}
	d.Annotations = map[string]string{annotationRefName: ProvenanceTag(a.Digest)}
	v.index = []entry{{Descriptor: d}}
}

// channel adds a channel after its manifest was changed, and reads it.
func (v *vector) channel(bundle []byte, change func(m *manifest)) {
	m, _, err := packChannel(bundle)
	if err != nil {
		panic(err)
	}
	v.put("", []byte(emptyJSON), "")
	v.put("", bundle, "")
	if change != nil {
		change(&m)
	}
	v.channelBytes(mustMarshal(m))
}

func (v *vector) channelBytes(b []byte) {
	d := v.put(TypeManifest, b, "")
	d.Annotations = map[string]string{annotationRefName: ChannelTag("stable")}
	v.index = []entry{{Descriptor: d}}
	v.read = "channel stable"
}

// makeVectors returns every vector of FORMAT.md.
func makeVectors(t *testing.T) []*vector {
	a := samplePack(t)
	replaced := func(old, new string) []byte {
		b := bytes.Replace(a.Manifest, []byte(old), []byte(new), 1)
		if bytes.Equal(b, a.Manifest) {
			t.Fatalf("nothing replaced: %s", old)
		}
		return b
	}
	var all []*vector
	add := func(number int, name, reason string, fill func(v *vector)) {
		v := &vector{number: number, name: name, reason: reason, blobs: map[canon.Digest][]byte{}}
		fill(v)
		all = append(all, v)
	}
	release := func(number int, name, reason string, change func(m *manifest)) {
		add(number, name, reason, func(v *vector) { v.release(a, change) })
	}
	raw := func(number int, name, reason string, b []byte) {
		add(number, name, reason, func(v *vector) { v.release(a, nil); v.releaseBytes(b) })
	}
	text := func(number int, name, reason, old, new string) {
		add(number, name, reason, func(v *vector) { v.withReleaseJSON(a, old, new) })
	}
	dataset := func(number int, name, reason string, change func(m *manifest)) {
		add(number, name, reason, func(v *vector) { v.dataset(change) })
	}
	bundle := func(number int, name, reason string, change func(m *manifest)) {
		add(number, name, reason, func(v *vector) { v.bundle(a, change) })
	}

	channel := func(number int, name, reason string, change func(m *manifest)) {
		add(number, name, reason, func(v *vector) { v.channel(sampleBundle("x"), change) })
	}

	channel(0, "channel", "", nil)
	release(0, "release", "", nil)
	dataset(0, "dataset", "", nil)
	bundle(0, "bundle", "", nil)

	add(1, "other-bytes", "asked for", func(v *vector) {
		v.release(a, nil)
		v.blobs[a.Digest] = replaced(`"size":28`, `"size":29`)
	})
	raw(2, "manifest-too-long", "limit", append(a.Manifest[:len(a.Manifest)-1:len(a.Manifest)-1],
		`,"z":"`+strings.Repeat("z", MaxOwnManifest)+`"}`...))
	raw(3, "no-json", "not JSON", []byte("<html>"))
	raw(3, "schema-version", "schemaVersion", replaced(`"schemaVersion":2`, `"schemaVersion":1`))
	raw(3, "no-media-type", "does not state", replaced(`"mediaType":"`+TypeManifest+`",`, ``))
	raw(3, "docker-media-type", "does not fit", replaced(TypeManifest, "application/vnd.docker.distribution.manifest.v2+json"))
	raw(4, "index", "image index", []byte(`{"manifests":[],"mediaType":"`+TypeIndex+`","schemaVersion":2}`))
	raw(5, "manifest-and-index", "both", replaced(`"mediaType":"`+TypeManifest+`"`, `"manifests":[],"mediaType":"`+TypeManifest+`"`))
	release(6, "artifact-type", "artifactType", func(m *manifest) { m.ArtifactType = TypeDataset })
	release(6, "artifact-type-missing", "artifactType", func(m *manifest) { m.ArtifactType = "" })
	raw(7, "white-space", "canonical", replaced(`,"schemaVersion"`, `, "schemaVersion"`))
	raw(7, "member-order", "canonical", replaced(`"size":28}`, `"size":28,"a":1}`))
	raw(7, "member-twice", "not JSON", replaced(`"schemaVersion":2`, `"schemaVersion":2,"schemaVersion":2`))
	raw(7, "empty-member", "left out", replaced(`{"artifactType":"`+TypeRelease+`","config":{`, `{"artifactType":"`+TypeRelease+`","config":{"annotations":{},`))
	raw(8, "urls", "urls", replaced(`"size":28}`, `"size":28,"urls":["https://example.org/"]}`))
	raw(8, "data", "data", replaced(`"config":{`, `"config":{"data":"e30=",`))
	release(9, "subject", "subject", func(m *manifest) { d := a.Descriptor(); d.ArtifactType = ""; m.Subject = &d })
	release(9, "annotations", "annotations", func(m *manifest) { m.Annotations = map[string]string{annotationCreated: "2026-01-01T00:00:00Z"} })
	release(10, "config-media-type", "media type", func(m *manifest) { m.Config.MediaType = typeEmpty })
	release(11, "config-too-long", "config states", func(m *manifest) { m.Config.Size = MaxConfig + 1 })
	release(11, "config-empty", "config states", func(m *manifest) { m.Config.Size = 0 })
	release(12, "four-layers", "4 layers", func(m *manifest) { m.Layers = m.Layers[1:] })
	release(12, "six-layers", "6 layers", func(m *manifest) { m.Layers = append(m.Layers, m.Layers[0]) })
	release(13, "names-swapped", "titled", func(m *manifest) {
		m.Layers[0].Annotations, m.Layers[1].Annotations = m.Layers[1].Annotations, m.Layers[0].Annotations
	})
	release(13, "order", "titled", func(m *manifest) { m.Layers[2], m.Layers[3] = m.Layers[3], m.Layers[2] })
	release(13, "name-twice", "titled", func(m *manifest) { m.Layers[1] = m.Layers[0] })
	release(13, "path-as-name", "titled", func(m *manifest) { m.Layers[0].Annotations[annotationTitle] = "../feature_scaler.onnx" })
	release(14, "layer-media-type", "media type", func(m *manifest) { m.Layers[0].MediaType = "application/vnd.cncf.model.weight.v1.tar+gzip" })
	release(15, "no-filepath", "annotations", func(m *manifest) { delete(m.Layers[0].Annotations, annotationFilepath) })
	release(15, "more-annotations", "annotations", func(m *manifest) { m.Layers[0].Annotations["x"] = "y" })
	release(15, "layer-artifact-type", "artifactType", func(m *manifest) { m.Layers[0].ArtifactType = "a/b" })
	release(16, "model-too-long", "layer 1", func(m *manifest) { m.Layers[1].Size = MaxModel + 1 })
	release(16, "model-empty", "layer 1", func(m *manifest) { m.Layers[1].Size = 0 })
	release(16, "release-json-too-long", "layer 4", func(m *manifest) { m.Layers[4].Size = MaxReleaseJSON + 1 })
	add(17, "changed-byte", "mismatch", func(v *vector) {
		v.release(a, nil)
		v.blobs[canon.Sum(a.Models[2].Data)] = append([]byte("B"), a.Models[2].Data[1:]...)
	})
	add(17, "longer", "mismatch", func(v *vector) {
		v.release(a, nil)
		v.blobs[canon.Sum(a.Models[2].Data)] = append(slices.Clone(a.Models[2].Data), 'x')
	})
	release(17, "stated-shorter", "mismatch", func(m *manifest) { m.Layers[0].Size-- })
	text(18, "not-canonical", "canonical", `"format":1`, `"format": 1`)
	text(18, "unknown-member", "unknown", `"format":1`, `"format":1,"formats":1`)
	text(18, "member-twice", "duplicate", `"format":1`, `"format":1,"format":1`)
	text(18, "wrong-type", "release.json", `"product":"web"`, `"product":7`)
	text(19, "format-2", "format 2", `"format":1`, `"format":2`)
	text(19, "format-missing", "format 0", `"format":1,`, ``)
	text(20, "product", "product", `"product":"web"`, `"product":"Web"`)
	text(20, "product-with-path", "product", `"product":"web"`, `"product":"a/b"`)
	text(21, "number-zero", "release number", `"release":7`, `"release":0`)
	text(21, "number-too-large", "2^53", `"release":7`, `"release":9007199254740992`)
	text(22, "no-dataset", "dataset", a.Release.Dataset.String(), ``)
	text(22, "upper-case-digest", "lower-case", "sha256:3f", "sha256:3F")
	text(23, "section-missing", "metrics", `"metrics":{"macro_f1_ppm":912345},`, ``)
	text(23, "section-array", "scoring", `{"classes":["benign","xss"]}`, `[]`)
	text(24, "fraction", "number", `912345`, `0.5`)
	add(25, "other-config", "ModelPack config", func(v *vector) {
		other := bytes.Replace(a.Config, []byte(`"version":"7"`), []byte(`"version":"8"`), 1)
		v.release(a, func(m *manifest) { m.Config = v.put(typeModelConfig, other, "") })
	})
	add(25, "created-at", "ModelPack config", func(v *vector) {
		other := bytes.Replace(a.Config, []byte(`"descriptor":{`), []byte(`"descriptor":{"createdAt":"2026-01-01T00:00:00Z",`), 1)
		v.release(a, func(m *manifest) { m.Config = v.put(typeModelConfig, other, "") })
	})

	dataset(26, "artifact-type", "artifactType", func(m *manifest) { m.ArtifactType = TypeRelease })
	dataset(27, "config-title", "titled", func(m *manifest) { m.Config.Annotations = nil })
	dataset(27, "config-media-type", "media type", func(m *manifest) { m.Config.MediaType = typeJSON })
	dataset(28, "layer-missing", "2 layers", func(m *manifest) { m.Layers = m.Layers[:2] })
	dataset(28, "layers-swapped", "titled", func(m *manifest) { m.Layers[0], m.Layers[1] = m.Layers[1], m.Layers[0] })
	dataset(28, "layer-media-type", "media type", func(m *manifest) { m.Layers[0].MediaType = typeArrow + "+gzip" })
	dataset(28, "more-annotations", "annotations", func(m *manifest) { m.Layers[0].Annotations["x"] = "y" })
	dataset(29, "file-too-long", "layer 0", func(m *manifest) { m.Layers[0].Size = MaxDatasetFile + 1 })
	dataset(29, "snapshot-too-long", "config states", func(m *manifest) { m.Config.Size = MaxConfig + 1 })
	add(30, "changed-byte", "mismatch", func(v *vector) {
		v.dataset(nil)
		v.blobs[canon.Sum([]byte("records"))] = []byte("Records")
	})
	add(31, "tag-of-another", "mismatch", func(v *vector) {
		v.dataset(nil)
		d, _ := canon.ParseDigest(strings.TrimPrefix(v.read, "dataset "))
		tag := DatasetTag(canon.Sum([]byte("another")))
		v.index = []entry{{Descriptor: Descriptor{MediaType: TypeManifest, Digest: d, Size: int64(len(v.blobs[d])),
			Annotations: map[string]string{annotationRefName: tag}}}}
		v.read = "dataset " + tag
	})

	bundle(32, "manifest-too-long", "limit", func(m *manifest) { m.Annotations = map[string]string{"z": strings.Repeat("z", MaxOwnManifest)} })
	bundle(33, "artifact-type", "artifactType", func(m *manifest) { m.ArtifactType = "application/vnd.dev.sigstore.bundle+json;version=0.2" })
	bundle(34, "subject-of-another", "refer", func(m *manifest) { m.Subject.Digest = canon.Sum([]byte("another")) })
	bundle(34, "no-subject", "refer", func(m *manifest) { m.Subject = nil })
	bundle(35, "two-layers", "2 layers", func(m *manifest) { m.Layers = append(m.Layers, m.Layers[0]) })
	bundle(36, "layer-media-type", "media type", func(m *manifest) { m.Layers[0].MediaType = typeJSON })
	bundle(37, "too-long", "states", func(m *manifest) { m.Layers[0].Size = MaxBundle + 1 })
	add(38, "changed-byte", "mismatch", func(v *vector) {
		v.bundle(a, nil)
		b := sampleBundle("x")
		v.blobs[canon.Sum(b)] = bytes.Replace(b, []byte(`"x"`), []byte(`"y"`), 1)
	})

	add(39, "index", "image index", func(v *vector) {
		v.channel(sampleBundle("x"), nil)
		v.channelBytes([]byte(`{"manifests":[],"mediaType":"` + TypeIndex + `","schemaVersion":2}`))
	})
	channel(39, "artifact-type", "artifactType", func(m *manifest) { m.ArtifactType = TypeBundle })
	channel(39, "too-long", "limit", func(m *manifest) { m.Annotations = map[string]string{"z": strings.Repeat("z", MaxOwnManifest)} })
	channel(40, "no-layer", "0 layers", func(m *manifest) { m.Layers = []Descriptor{} })
	channel(40, "two-layers", "2 layers", func(m *manifest) { m.Layers = append(m.Layers, m.Layers[0]) })
	channel(41, "bundle-too-long", "states", func(m *manifest) { m.Layers[0].Size = MaxBundle + 1 })
	channel(41, "bundle-empty", "states", func(m *manifest) { m.Layers[0].Size = 0 })
	add(42, "changed-byte", "mismatch", func(v *vector) {
		v.channel(sampleBundle("x"), nil)
		b := sampleBundle("x")
		v.blobs[canon.Sum(b)] = bytes.Replace(b, []byte(`"x"`), []byte(`"y"`), 1)
	})
	channel(43, "subject", "follows", func(m *manifest) { d := a.Descriptor(); d.ArtifactType = ""; m.Subject = &d })
	channel(43, "annotations", "follows", func(m *manifest) { m.Annotations = map[string]string{annotationCreated: "2026-01-01T00:00:00Z"} })
	channel(43, "title", "follows", func(m *manifest) { m.Layers[0].Annotations[annotationTitle] = "../x" })
	channel(43, "layer-media-type", "follows", func(m *manifest) { m.Layers[0].MediaType = typeJSON })
	channel(43, "config", "follows", func(m *manifest) { m.Config.MediaType = typeJSON })
	add(43, "white-space", "follows", func(v *vector) {
		v.channel(sampleBundle("x"), nil)
		_, b, _ := packChannel(sampleBundle("x"))
		v.channelBytes(bytes.Replace(b, []byte(`,"schemaVersion"`), []byte(`, "schemaVersion"`), 1))
	})
	add(44, "no-bundle", "media type", func(v *vector) { v.channel([]byte(`{"mediaType":"application/json"}`), nil) })
	add(44, "no-json", "not JSON", func(v *vector) { v.channel([]byte("x"), nil) })
	return all
}

// encode writes the vector as an OCI image layout in a txtar archive. The line
// end after each file belongs to the archive, not to the file.
func (v *vector) encode() []byte {
	head := "expect: ok\n"
	if v.reason != "" {
		head = "expect: invalid\nreason: " + v.reason + "\n"
	}
	a := &txtar.Archive{Comment: []byte(head + "read: " + v.read + "\n")}
	file := func(name string, b []byte) {
		a.Files = append(a.Files, txtar.File{Name: name, Data: append(slices.Clone(b), '\n')})
	}
	file(layoutFile, []byte(layoutContent))
	manifests := v.index
	if manifests == nil {
		manifests = []entry{}
	}
	file(indexFile, mustMarshal(struct {
		SchemaVersion int     `json:"schemaVersion"`
		MediaType     string  `json:"mediaType"`
		Manifests     []entry `json:"manifests"`
	}{2, TypeIndex, manifests}))
	for _, d := range slices.SortedFunc(maps.Keys(v.blobs), func(a, b canon.Digest) int { return bytes.Compare(a[:], b[:]) }) {
		file("blobs/sha256/"+d.Hex(), v.blobs[d])
	}
	return txtar.Format(a)
}

func TestVectors(t *testing.T) {
	if *update {
		if err := os.RemoveAll(vectorDir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(vectorDir, 0o777); err != nil {
			t.Fatal(err)
		}
		for _, v := range makeVectors(t) {
			if err := os.WriteFile(filepath.Join(vectorDir, v.filename()), v.encode(), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	names, err := filepath.Glob(filepath.Join(vectorDir, "*.txtar"))
	if err != nil || len(names) == 0 {
		t.Fatal("no vectors", err)
	}
	numbers := map[int]bool{}
	for _, name := range names {
		base := filepath.Base(name)
		n, err := strconv.Atoi(base[:2])
		if err != nil {
			t.Fatal(err)
		}
		numbers[n] = true
		t.Run(strings.TrimSuffix(base, ".txtar"), func(t *testing.T) { runVector(t, name) })
	}
	// Every numbered rejection of FORMAT.md has a vector, and the other way round.
	page, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(page), "## 6. ")
	list, _, _ = strings.Cut(list, "\n## ")
	stated := map[int]bool{0: true}
	for _, m := range regexp.MustCompile(`(?m)^(\d+)\. `).FindAllStringSubmatch(list, -1) {
		n, _ := strconv.Atoi(m[1])
		stated[n] = true
	}
	if !maps.Equal(stated, numbers) {
		t.Errorf("FORMAT.md numbers %v, vectors %v", slices.Sorted(maps.Keys(stated)), slices.Sorted(maps.Keys(numbers)))
	}
}

func runVector(t *testing.T, path string) {
	ctx := context.Background()
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head := map[string]string{}
	for line := range strings.Lines(string(a.Comment)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		head[key] = value
	}
	dir := t.TempDir()
	for _, f := range a.Files {
		p := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(p), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, bytes.TrimSuffix(f.Data, []byte("\n")), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(ctx, Ref{Layout: dir}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	what, name, _ := strings.Cut(head["read"], " ")
	switch what {
	case "release":
		d, perr := canon.ParseDigest(name)
		if perr != nil {
			t.Fatal(perr)
		}
		_, err = Pull(ctx, s, d)
	case "dataset":
		out := filepath.Join(t.TempDir(), "out")
		_, err = PullDataset(ctx, s, name, out)
		if _, serr := os.Stat(out); err != nil && serr == nil {
			t.Error("the refused dataset was written")
		}
	case "bundles":
		d, perr := canon.ParseDigest(name)
		if perr != nil {
			t.Fatal(perr)
		}
		var found *BundleList
		found, err = Bundles(ctx, s, d, ProvenanceTag(d))
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Bundles)+len(found.Skipped) != 1 {
			t.Fatalf("found %+v", found)
		}
		for _, line := range found.Skipped {
			err = fmt.Errorf("%w: %s", ErrInvalid, line)
		}
	case "channel":
		var b []byte
		b, _, err = GetChannel(ctx, s, name)
		if (b != nil) != (err == nil) {
			t.Error("a refused channel was returned")
		}
	default:
		t.Fatalf("read %q?", head["read"])
	}
	switch head["expect"] {
	case "ok":
		if err != nil {
			t.Errorf("refused: %v", err)
		}
	case "invalid":
		if !errors.Is(err, ErrInvalid) || head["reason"] == "" || !strings.Contains(err.Error(), head["reason"]) {
			t.Errorf("got %v, want ErrInvalid with %q", err, head["reason"])
		}
	default:
		t.Errorf("expect %q?", head["expect"])
	}
}
