//go:build tools

// Package assets pins the krew that installs kubectl's plugin in its test.
package assets

import _ "sigs.k8s.io/krew/cmd/krew"
