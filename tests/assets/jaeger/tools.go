//go:build tools

// Package assets pins the Jaeger that the tests of traces run.
package assets

import _ "github.com/jaegertracing/jaeger/cmd/jaeger"
