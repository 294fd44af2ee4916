package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
)

// cardFormats are the values of --format, and what each is.
var cardFormats = []struct{ name, mediaType, extension string }{
	{"md", oras.TypeMarkdown, ".md"},
	{"html", oras.TypeHTML, ".html"},
	{"cyclonedx", oras.TypeCycloneDX, ".cdx.json"},
	{"croissant", oras.TypeJSONLD, ".jsonld"},
}

var cardCommand = cli.Command{
	Name:  "card",
	Args:  "REF",
	Short: "describe a release: model card, bill of materials, dataset description",
	Long: `
Makes a document from the release itself, with one version of bhtrain the same
bytes everywhere: what each model is for and not for, the data by source, figures by
class, plots. The figures are those that the release states; whether it may be
trusted is for 'bhverify release' to say, and 'bhverify rebuild' computes the
figures again.

Formats: md and html are the model card, html as one page that loads nothing;
cyclonedx is a CycloneDX 1.6 bill of materials; croissant is a Croissant 1.1
description of the dataset, which must be beside the release. 'bhtrain run'
attaches all of them.`,
	Example: `
bhtrain card dist
bhtrain card dist -o card.html
bhtrain card registry.example.org/models/web:release-7 --format cyclonedx -o bom.cdx.json`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		format := fs.String("format", "", "md, html, cyclonedx or croissant (default: by the name of FILE, else md)")
		out := fs.StringP("out", "o", "", "`FILE` to write (default: standard output)")
		stores := newStoreFlags(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("want one argument, a release: a directory or a reference")
			}
			ref, err := oras.ParseRef(args[0])
			if err != nil {
				return cli.Usagef("%w", err)
			}
			mediaType := oras.TypeMarkdown
			for _, f := range cardFormats {
				if *format == "" && strings.HasSuffix(strings.ToLower(filepath.Base(*out)), f.extension) {
					mediaType = f.mediaType
				}
			}
			if *format != "" {
				i := slices.IndexFunc(cardFormats, func(f struct{ name, mediaType, extension string }) bool { return f.name == *format })
				if i < 0 {
					return cli.Usagef("--format %q: want md, html, cyclonedx or croissant", *format)
				}
				mediaType = cardFormats[i].mediaType
			}
			d, err := pipeline.Document(ctx, ref, mediaType, stores.options())
			if err != nil {
				return err
			}
			if *out != "" {
				return durable.WriteFile(durable.OS, *out, d.Data, 0o644)
			}
			_, err = c.Stdout.Write(d.Data)
			return err
		}
	},
}
