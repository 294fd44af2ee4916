package sign

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/verify"
)

// ErrToken: an identity token that cannot be had, or that must not be sent to a
// certificate authority. Its message never holds a part of the token.
var ErrToken = errors.New("identity token")

// Audience is what the aud claim of a token must name. A token for another
// service would let a certificate authority act there, so it is never sent.
const Audience = "sigstore"

const maxToken = 16 << 10 // bytes; those of GitHub have about 2 KiB

// Token returns an OIDC identity token, a new one each time where that is
// possible, since tokens are valid for minutes.
type Token func(context.Context) (string, error)

// TokenText is a Token that is known: the content of SIGSTORE_ID_TOKEN.
func TokenText(text string) Token {
	return func(context.Context) (string, error) { return checkToken(text) }
}

// TokenFile is a Token that is read from a file each time.
func TokenFile(path string) Token {
	return func(context.Context) (string, error) {
		text, _, err := readSecret(path)
		if err != nil {
			return "", fmt.Errorf("%w %s: %w", ErrToken, path, err)
		}
		token, err := checkToken(string(text))
		if err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		return token, nil
	}
}

// AmbientToken is the Token that the environment offers: SIGSTORE_ID_TOKEN,
// else that of a GitHub Actions job with the permission id-token: write. Without
// either it is ErrToken.
func AmbientToken(getenv func(string) string) (Token, error) {
	if text := getenv("SIGSTORE_ID_TOKEN"); text != "" {
		return TokenText(text), nil
	}
	address, bearer := getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	switch {
	case address != "" && bearer != "":
		return githubToken(address, bearer), nil
	case getenv("GITHUB_ACTIONS") == "true":
		return nil, fmt.Errorf("%w: this GitHub Actions job gets none: give it the permission 'id-token: write'", ErrToken)
	}
	return nil, fmt.Errorf("%w: there is none: name a file with --identity-token, set SIGSTORE_ID_TOKEN, or run as a GitHub Actions job with the permission 'id-token: write'", ErrToken)
}

// githubToken asks the endpoint that a GitHub Actions job is given.
func githubToken(address, bearer string) Token {
	return func(ctx context.Context) (string, error) {
		fail := func(err error) (string, error) {
			return "", fmt.Errorf("%w: GitHub Actions gives none: %s", ErrToken, plain(err, bearer))
		}
		u, err := url.Parse(address)
		if err != nil {
			return fail(errors.New("ACTIONS_ID_TOKEN_REQUEST_URL is no URL"))
		}
		q := u.Query()
		q.Set("audience", Audience)
		u.RawQuery = q.Encode()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return fail(err)
		}
		req.Header.Set("Authorization", "Bearer "+bearer)
		req.Header.Set("Accept", "application/json")
		client := http.Client{Transport: transport{ctx}, Timeout: timeout}
		resp, err := client.Do(req)
		if err != nil {
			return fail(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 2*maxToken))
		if err != nil {
			return fail(err)
		}
		var answer struct {
			Value string `json:"value"`
		}
		if resp.StatusCode != http.StatusOK {
			return fail(fmt.Errorf("HTTP status %d", resp.StatusCode))
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return fail(errors.New("the answer is not JSON")) // whose words could hold the token
		}
		return checkToken(answer.Value)
	}
}

var tokenPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// checkToken refuses what is no JSON web token for us. Who issued it, for whom
// and whether it is still valid is for the certificate authority to say.
func checkToken(text string) (string, error) {
	text = strings.TrimSpace(text)
	if len(text) > maxToken || !tokenPattern.MatchString(text) {
		return "", fmt.Errorf("%w: this is no JSON web token: want three parts in base64url with dots between", ErrToken)
	}
	claims, err := base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[1])
	var c struct {
		Audience jsontext.Value `json:"aud"`
	}
	if err != nil || json.Unmarshal(claims, &c) != nil {
		return "", fmt.Errorf("%w: its claims are not JSON", ErrToken)
	}
	var list []string
	if c.Audience.Kind() == '"' {
		list = make([]string, 1)
		err = json.Unmarshal(c.Audience, &list[0])
	} else {
		err = json.Unmarshal(c.Audience, &list)
	}
	if err != nil {
		list = nil
	}
	for _, a := range list {
		if a == Audience {
			return text, nil
		}
	}
	return "", fmt.Errorf("%w: it is for %q, want the audience %q; it was sent to nobody", ErrToken, verify.Printable(strings.Join(list, ", ")), Audience)
}
