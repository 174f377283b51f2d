// Command dashboard-schema prints where a dashboard differs from the schema that Grafana publishes
// for its dashboards, panels and data sources, one difference a line.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

var version = "unknown"

func main() {
	if os.Args[1] == "--version" {
		fmt.Println(version)
		return
	}
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	plugins.RegisterDefaultPlugins()
	var found dashboard.Dashboard
	if err := found.UnmarshalJSONStrict(text); err != nil {
		fmt.Println(err)
	}
	if err := found.Validate(); err != nil {
		fmt.Println(err)
	}
}
