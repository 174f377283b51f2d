//go:build tools

// Package assets pins the enforcer of NetworkPolicy that the node tests run.
// Its libraries are raised to the versions of ../kubernetes: what Go compiled for
// that it need not compile again, which leaves a fifth of the work.
package assets

import _ "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"
