package card

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

func bomOf(t testing.TB, c *Card) []byte {
	t.Helper()
	b, err := c.BOM()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// bomSchema is CycloneDX's own schema, from the module that writes the BOM.
func bomSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		testkit.Missing(t, "go list: "+err.Error())
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "schema")
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for name, file := range map[string]string{"bom-1.6.schema.json": "bom-1.6.schema.json", "spdx.schema.json": "spdx.schema.json", "jsf-0.82.schema.json": "jsf-0.82.schemax.json"} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			testkit.Missing(t, "no schema of CycloneDX in the module cache: "+err.Error())
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource("http://cyclonedx.org/schema/"+name, doc); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, b []byte) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

func TestBOMIsValidCycloneDX(t *testing.T) {
	s := bomSchema(t)
	b := bomOf(t, newCard(t))
	if err := validate(t, s, b); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"an unknown type":       {`"type":"machine-learning-model"`, `"type":"model"`},
		"a serial number":       {`"serialNumber":"urn:uuid:`, `"serialNumber":"uuid:`},
		"a timestamp":           {`"timestamp":"`, `"timestamp":"on `},
		"a hash":                {`"content":"`, `"content":"x`},
		"an unknown member":     {`"bomFormat":`, `"more":1,"bomFormat":`},
		"an unknown approach":   {`"type":"unsupervised"`, `"type":"trained"`},
		"a dependency of twice": {`"dependsOn":["dataset"]`, `"dependsOn":["dataset","dataset"]`},
	} {
		broken := bytes.Replace(b, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(broken, b) {
			t.Errorf("%s: %s is not in the BOM", name, change[0])
		} else if err := validate(t, s, broken); err == nil {
			t.Errorf("%s: the schema does not mind", name)
		}
	}
}

func TestBOMNamesWhatIsInTheRelease(t *testing.T) {
	c := newCard(t)
	b := bomOf(t, c)
	if again, err := canon.Canonicalize(b); err != nil || !bytes.Equal(again, b) {
		t.Errorf("not canonical JSON: %v", err)
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(b), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if bom.SpecVersion != cdx.SpecVersion1_6 || bom.Version != 1 || bom.Metadata.Timestamp != time.UnixMicro(c.recipe.AsOf).UTC().Format(time.RFC3339) || c.recipe.AsOf == 0 {
		t.Errorf("version %v, timestamp %s, recipe as of %d", bom.SpecVersion, bom.Metadata.Timestamp, c.recipe.AsOf)
	}
	refs := []string{bom.Metadata.Component.BOMRef}
	for _, x := range *bom.Components {
		refs = append(refs, x.BOMRef)
		if x.ModelCard != nil {
			refs = append(refs, x.ModelCard.BOMRef)
			if data := *x.ModelCard.ModelParameters.Datasets; len(data) != 1 || data[0].Ref != refDataset {
				t.Errorf("%s: datasets %+v", x.Name, data)
			}
		}
		h := (*x.Hashes)[0]
		i := slices.IndexFunc(c.files, func(f file) bool { return f.Name == x.Name })
		if want := c.release.Dataset; i < 0 && (x.BOMRef != refDataset || h.Value != want.Hex()) || i >= 0 && h.Value != c.files[i].Digest.Hex() || h.Algorithm != cdx.HashAlgoSHA256 {
			t.Errorf("%s has hash %+v", x.Name, h)
		}
	}
	if len(*bom.Components) != len(c.files)+1 {
		t.Errorf("%d components", len(*bom.Components))
	}
	if slices.Sort(refs); len(slices.Compact(slices.Clone(refs))) != len(refs) {
		t.Errorf("references %q", refs)
	}
	for _, d := range *bom.Dependencies {
		on := []string{d.Ref}
		if d.Dependencies != nil {
			on = append(on, *d.Dependencies...)
		}
		for _, r := range on {
			if !slices.Contains(refs, r) {
				t.Errorf("a dependency on %q, which is not there", r)
			}
		}
	}
}

// RFC 9562 §5.5, by hand: SHA-1 over the namespace of URLs and the name.
func TestSerialNumberFollowsFromTheDigest(t *testing.T) {
	c := newCard(t)
	namespace, err := hex.DecodeString("6ba7b8119dad11d180b400c04fd430c8")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(append(namespace, "https://github.com/battle-hardened-ai/bhtrain/release/"+c.digest.String()...))
	u := sum[:16]
	u[6], u[8] = u[6]&0x0f|0x50, u[8]&0x3f|0x80
	want := fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
	serial := regexp.MustCompile(`"serialNumber":"([^"]*)"`)
	if got := serial.FindSubmatch(bomOf(t, c)); got == nil || string(got[1]) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	other, err := New(repack(t, func(r *oras.Release) { r.Number++ }))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(bomOf(t, other), []byte(want)) {
		t.Error("another release has the same serial number")
	}
}
