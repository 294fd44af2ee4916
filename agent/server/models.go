package server

import (
	"encoding/base64"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Release describes a release that is installed.
type Release struct {
	InUse   bool         `json:"in_use"` // false when it was refused or revoked since
	Digest  canon.Digest `json:"digest"` // of the manifest: the identity of the release
	Product string       `json:"product"`
	Number  int64        `json:"number"`
	Dataset Dataset      `json:"dataset"`
	Classes []string     `json:"classes"` // of the classifier, in its order
	Models  []Model      `json:"models"`  // the four files, in the order of oras.ModelFiles
}

// Dataset is what a release says that it was trained on.
type Dataset struct {
	Digest   canon.Digest `json:"digest"`         // of snapshot.json
	Exploits int64        `json:"exploits"`       // rows of exploits
	Records  int64        `json:"records"`        // rows of records
	AsOf     time.Time    `json:"as_of,omitzero"` // what ages of records are counted from; absent when that is the newest record
}

// Model is one file of a release.
type Model struct {
	Name   string       `json:"name"`   // without the extension, as /models/ has it
	File   string       `json:"file"`   // with it
	SHA256 canon.Digest `json:"sha256"` // of the file
	Size   int          `json:"size"`   // bytes
}

// describe reads what release.json says about its dataset; those members are
// for people, and one that is missing or strange is left out.
func describe(a *oras.Artifact) *Release {
	r := &Release{Digest: a.Digest, Product: a.Release.Product, Number: a.Release.Number, Dataset: Dataset{Digest: a.Release.Dataset}}
	var metrics struct {
		Data struct {
			Exploits int64 `json:"exploits"`
			Records  int64 `json:"records"`
		} `json:"data"`
	}
	if json.Unmarshal(a.Release.Metrics, &metrics) == nil {
		r.Dataset.Exploits, r.Dataset.Records = metrics.Data.Exploits, metrics.Data.Records
	}
	var scoring struct {
		Classes []string `json:"classes"`
	}
	if json.Unmarshal(a.Release.Scoring, &scoring) == nil {
		r.Classes = scoring.Classes
	}
	var recipe struct {
		AsOf int64 `json:"as_of"` // microseconds
	}
	if json.Unmarshal(a.Release.Recipe, &recipe) == nil && recipe.AsOf != 0 {
		r.Dataset.AsOf = time.UnixMicro(recipe.AsOf).UTC()
	}
	for _, f := range a.Models {
		r.Models = append(r.Models, Model{Name: modelName(f.Name), File: f.Name, SHA256: canon.Sum(f.Data), Size: len(f.Data)})
	}
	return r
}

func modelName(file string) string { return strings.TrimSuffix(file, ".onnx") }

// models answers GET /api/models.
func (s *Server) models(w http.ResponseWriter, _ *http.Request) { answer(w, s.status.Load()) }

// purpose says what each model is for.
var purpose = map[string]string{
	"feature_scaler":    "brings feature values to one scale",
	"anomaly_detector":  "how unlike ordinary traffic a request is",
	"threat_classifier": "which kind of attack a request is",
	"ip_reputation":     "how likely a source address is bad",
}

// modelList answers GET /models/list in the form of the service that this
// replaces, with digests added.
func (s *Server) modelList(w http.ResponseWriter, r *http.Request) {
	live := s.live.Load()
	if live == nil {
		problem(w, http.StatusServiceUnavailable, "nothing is loaded: "+s.status.Load().Reason, nil)
		return
	}
	rel := describe(live.Release())
	type entry struct {
		Description string       `json:"description"`
		SizeKB      float64      `json:"size_kb"` // KiB, to a tenth
		Endpoint    string       `json:"endpoint"`
		File        string       `json:"file"`
		SHA256      canon.Digest `json:"sha256"`
		Size        int          `json:"size"`
	}
	list := map[string]entry{}
	total := 0
	for _, m := range rel.Models {
		total += m.Size
		list[m.Name] = entry{purpose[m.Name], kib(m.Size), "/models/" + m.Name, m.File, m.SHA256, m.Size}
	}
	answer(w, map[string]any{
		"last_updated":     live.since.UTC().Format(time.RFC3339),
		"models_available": list,
		"total_size_kb":    kib(total),
		"release":          rel.Number,
		"product":          rel.Product,
		"digest":           rel.Digest,
		"note":             "verified by this agent before it was loaded",
	})
}

// kib is n bytes in KiB, to a tenth.
func kib(n int) float64 { return float64((n*10+512)/1024) / 10 }

// modelFile answers GET /models/NAME with the bytes that are loaded, by the
// name with or without its extension.
func (s *Server) modelFile(w http.ResponseWriter, r *http.Request) {
	live := s.live.Load()
	if live == nil {
		problem(w, http.StatusServiceUnavailable, "nothing is loaded: "+s.status.Load().Reason, nil)
		return
	}
	name := r.PathValue("name")
	for _, f := range live.Release().Models {
		if name != f.Name && name != modelName(f.Name) {
			continue
		}
		d := canon.Sum(f.Data)
		head := w.Header()
		head.Set("Content-Type", "application/octet-stream")
		head.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.Name}))
		head.Set("Content-Length", strconv.Itoa(len(f.Data)))
		head.Set("ETag", `"`+d.String()+`"`)
		head.Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(d[:])+":")
		head.Set("X-Release-Digest", live.Release().Digest.String())
		if r.Header.Get("If-None-Match") == `"`+d.String()+`"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Write(f.Data)
		return
	}
	problem(w, http.StatusNotFound, "the release has no model "+name+": see /models/list", nil)
}

// stats answers GET /stats in the form of the service that this replaces: what
// the loaded release was trained on, and what this agent did since it started.
func (s *Server) stats(w http.ResponseWriter, _ *http.Request) {
	out := map[string]any{
		"timestamp":        s.opt.Now().UTC().Format(time.RFC3339),
		"state":            s.status.Load().State,
		"models_available": 0,
		"agent":            s.metrics.totals(),
		"version":          s.opt.Version,
	}
	if live := s.live.Load(); live != nil {
		rel := describe(live.Release())
		size := 0
		for _, m := range rel.Models {
			size += m.Size
		}
		out["models_available"] = len(rel.Models)
		out["models_total_size_kb"] = kib(size)
		out["release"] = rel.Number
		out["digest"] = rel.Digest
		out["relay_training_data"] = map[string]any{
			"exploitdb_signatures":  rel.Dataset.Exploits,
			"global_attacks_logged": rel.Dataset.Records,
			"dataset":               rel.Dataset.Digest,
		}
	}
	answer(w, out)
}
