//go:build tools

// Package assets pins the Helm that the chart's tests run.
package assets

import _ "helm.sh/helm/v4/cmd/helm"
