//go:build tools

// Package assets pins the Ory Hydra that the issuer tests run.
package assets

import _ "github.com/ory/hydra/v2"
