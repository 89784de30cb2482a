package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

const configName = "config"

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: configName, EnvVars: env(configName),
		Usage: "YAML `FILE` with flags as keys; flags and variables go before it"}
}

// readConfig sets the flags that neither the command line nor the environment
// has set from the file of --config. Its keys are the flags' names; a flag that
// may be repeated takes a list.
func readConfig(c *cli.Context) error {
	file := c.String(configName)
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("--config %s: %w", file, err)
	}
	if doc.Kind == 0 { // an empty file
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("--config %s: line %d: must have lines such as `max-pending: 64KiB`", file, root.Line)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if key := root.Content[i]; seen[key.Value] {
			return fmt.Errorf("--config %s: line %d: %s is there twice", file, key.Line, key.Value)
		}
		seen[root.Content[i].Value] = true
		if err := setFromConfig(c, root.Content[i], root.Content[i+1]); err != nil {
			return fmt.Errorf("--config %s: line %d: %w", file, root.Content[i].Line, err)
		}
	}
	return nil
}

func setFromConfig(c *cli.Context, key, value *yaml.Node) error {
	name := key.Value
	i := slices.IndexFunc(c.Command.Flags, func(f cli.Flag) bool { return f.Names()[0] == name })
	if i < 0 || name == configName || name == "help" {
		return fmt.Errorf("%q is no flag of halley %s", name, c.Command.Name)
	}
	values := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		if _, repeats := c.Command.Flags[i].(*cli.StringSliceFlag); !repeats {
			return fmt.Errorf("%s takes one value, not a list", name)
		}
		values = value.Content
	}
	if c.IsSet(name) {
		return nil
	}
	for _, v := range values {
		if v.Kind != yaml.ScalarNode {
			return fmt.Errorf("%s takes a plain value", name)
		}
		if err := c.Set(name, v.Value); err != nil {
			if name == "cookie" {
				return fmt.Errorf("%s: bad value", name)
			}
			return fmt.Errorf("%s: %q: %w", name, v.Value, err)
		}
	}
	return nil
}
