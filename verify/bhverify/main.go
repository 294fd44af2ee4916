// Command bhverify says whether a release of models is what a local policy
// demands.
//
//	bhverify release REF --policy FILE    judge a release, check by check
//	bhverify rebuild REF                  train a release again and compare
//	bhverify inspect REF                  show a release and what is said about it
//	bhverify bundle --bundle FILE …       verify a Sigstore bundle about any file
//	bhverify auditors REF                 say which auditors have rebuilt a release
//	bhverify watch REF                    rebuild and attest each new release
//	bhverify dataset check REF            prove that a dataset keeps its format
//	bhverify dataset prove REF            prove that a row is in a dataset, or is not
//	bhverify dataset verify-proof FILE    check such a proof without the dataset
//	bhverify dataset diff A B             say which rows two datasets differ in
//	bhverify policy init --key PUB        write a policy that trusts a key
//	bhverify policy check FILE            say in words what a policy demands
//	bhverify self                         say how to rebuild this program, and compare it
//	bhverify version
//
// Exit codes: 0 the release is verified, 1 it could not be decided (network,
// files, nothing found, a broken policy), 2 wrong command line, 3 refused, 4 not
// reproducible.
// The verdict goes to standard output, everything else to standard error.
package main

import (
	"errors"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify/rebuild"
)

// memory is what looking at a release may take before the garbage collector
// hurries, in bytes. A registry that floods gets there; others do not.
const memory = 32 << 20

func main() { app().Main() }

func app() cli.App {
	return cli.App{
		Name:  "bhverify",
		Short: "judge releases of models by a local policy",
		Long: `
A release is trusted only when every demand of the policy holds: who signed it,
for which product, trained on which dataset, by which recipe. The policy is a
local file and is never taken from what is judged.`,
		Commands: []cli.Command{
			releaseCommand(),
			rebuildCommand(),
			auditorsCommand(),
			watchCommand(),
			bundleCommand(),
			inspectCommand(),
			datasetCheckCommand(),
			datasetProveCommand(),
			datasetVerifyProofCommand(),
			datasetDiffCommand(),
			policyInitCommand(),
			policyCheckCommand(),
			selfCommand(),
			cli.VersionCommand("bhverify"),
		},
		Code: code,
	}
}

// code maps errors to exit codes. What breaks the rules of the formats is
// refused; every other error left the question open.
func code(err error) int {
	if errors.Is(err, oras.ErrInvalid) || errors.Is(err, dataset.ErrCorrupt) || errors.Is(err, dataset.ErrProof) ||
		errors.Is(err, rebuild.ErrRefused) {
		return cli.Refused
	}
	return cli.Failed
}
