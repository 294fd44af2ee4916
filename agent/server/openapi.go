package server

import (
	_ "embed"
	"net/http"
)

//go:embed openapi.yaml
var openapiText []byte

// openapi answers with the description of all paths.
func openapi(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	w.Write(openapiText)
}
