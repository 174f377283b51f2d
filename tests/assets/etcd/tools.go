//go:build tools

// Package assets pins the etcd that the cluster tests run.
package assets

import _ "go.etcd.io/etcd/server/v3"
