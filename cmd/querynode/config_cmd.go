package main

import (
	"fmt"

	"github.com/querynode/querynode/internal/config"
)

// configFlags are the flags of every command that needs the configuration.
type configFlags struct {
	Config      string   `placeholder:"FILE" env:"QUERYNODE_CONFIG" help:"YAML file with the configuration."`
	Set         []string `placeholder:"KEY=VALUE" sep:"none" help:"Set one key, such as grpc.listen=127.0.0.1:0. May be repeated; see: querynode config doc."`
	DataDir     *string  `placeholder:"DIR" help:"Folder of the node's files (node.data_dir)."`
	GRPCListen  *string  `name:"grpc-listen" placeholder:"ADDR" help:"Address of the API (grpc.listen)."`
	AdminListen *string  `placeholder:"ADDR" help:"Address for metrics, health and profiles (admin.listen)."`
	LogLevel    *string  `placeholder:"LEVEL" help:"debug, info, warn or error (log.level)."`
}

// load merges defaults, file, environment and flags. An error is one of usage.
func (f *configFlags) load(a *app) (*config.Config, config.Origins, error) {
	flags := map[string]string{}
	for key, v := range map[string]*string{
		"node.data_dir": f.DataDir, "grpc.listen": f.GRPCListen, "admin.listen": f.AdminListen, "log.level": f.LogLevel,
	} {
		if v != nil {
			flags[key] = *v
		}
	}
	c, from, err := config.Load(config.Sources{File: f.Config, Environ: a.environ, Set: f.Set, Flags: flags})
	return c, from, usage(err)
}

type configCmd struct {
	Print configPrintCmd `cmd:"" help:"Print what is in force and where each value comes from."`
	Doc   configDocCmd   `cmd:"" help:"Print the reference of all keys, as Markdown."`
}

type configPrintCmd struct {
	configFlags
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is the long form of the help.
func (p *configPrintCmd) Help() string {
	return `Prints every key with its value and whether that is the default, or comes from
the file, a variable or a flag. Defaults are comments: as a file, the text sets
what has been set and nothing else, so that what is worked out from the machine
(memory.limit and other ones) still is, wherever the file is used. Secrets are left
out. Problems and warnings are listed, as "querynode serve" would list them.

Example:

  querynode config print --config node.yaml
  querynode config print --set grpc.listen=0.0.0.0:19530 > node.yaml
  QUERYNODE_GRPC_LISTEN=0.0.0.0:19530 querynode config print --json | jq .values.grpc`
}

// Run prints the configuration. A configuration with problems is printed too, as
// far as it was understood, since the print helps to find them.
func (p *configPrintCmd) Run(a *app) error {
	c, from, problems := p.load(a)
	write := config.WriteYAML
	if p.JSON {
		write = config.WriteJSON
	}
	if err := write(a.stdout, c, from); err != nil {
		return err
	}
	if problems == nil {
		for _, w := range c.Warnings() {
			fmt.Fprintf(a.stderr, "warning: %s\n", w)
		}
	}
	return problems
}

type configDocCmd struct{}

// Help is the long form of the help.
func (configDocCmd) Help() string {
	return `Example:

  querynode config doc > docs/configuration.md`
}

// Run prints the reference.
func (configDocCmd) Run(a *app) error { return config.WriteReference(a.stdout) }
