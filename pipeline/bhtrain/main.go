// Command bhtrain trains the four models of battle-hardened-ai and makes a
// signed release of them.
//
// It turns the ExploitDB index and attack records into a canonical snapshot,
// trains on it reproducibly, packs the models as an OCI artifact, signs its
// provenance and verifies the result. Without inputs it does so with an
// embedded sample. 'bhtrain help' lists the commands.
//
// Exit codes: 0 done, 1 could not do it, 2 usage, 3 the result or an artifact
// is not trusted, 5 corrupt snapshot or memory.
package main

import (
	"errors"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
	"github.com/battle-hardened-ai/bhtrain/pipeline/card"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

func main() { app.Main() }

var app = cli.App{
	Name:  "bhtrain",
	Short: "train, pack and sign the models of battle-hardened-ai, reproducibly",
	Long: `
The same snapshot and recipe give the same four model files and the same OCI
manifest digest on any machine, so that anybody can check a release by
building it again ('bhverify rebuild').`,
	Commands: []cli.Command{runCommand, snapshotCommand, trainCommand, matrixCommand, benchCommand, cardCommand, signCommand, signDatasetCommand, channelCommand, revokeCommand, pushCommand, cli.VersionCommand("bhtrain")},
	Code:     exitCode,
}

func exitCode(err error) int {
	switch {
	case errors.Is(err, dataset.ErrCorrupt), errors.Is(err, pipeline.ErrMemory):
		return cli.CorruptState
	case errors.Is(err, pipeline.ErrOwnResult), errors.Is(err, sign.ErrUnverified), errors.Is(err, pipeline.ErrChannel),
		errors.Is(err, pipeline.ErrUnproven), errors.Is(err, verify.ErrStatement), errors.Is(err, oras.ErrInvalid), errors.Is(err, card.ErrRelease):
		return cli.Refused
	}
	return cli.Failed
}
