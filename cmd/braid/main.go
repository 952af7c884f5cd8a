// Command braid is the whole of Braid: a node, a throw-away cluster to try it,
// and the commands that look at a running cluster or put load on it.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// Exit codes: 0 done, 1 failed, 2 wrong usage.
const (
	exitFailed = 1
	exitUsage  = 2
)

type cli struct {
	Config kong.ConfigFlag `help:"A YAML file; its keys are the flags' names. Flags beat BRAID_* variables beat the file." placeholder:"FILE" env:"-"`

	Demo       demoCmd       `cmd:"" help:"Run three nodes in one process on throw-away data."`
	Start      startCmd      `cmd:"" help:"Run a node."`
	Status     statusCmd     `cmd:"" help:"Say how the cluster is."`
	Nodes      nodesCmd      `cmd:"" help:"List the nodes, or give one up."`
	Tables     tablesCmd     `cmd:"" help:"List the tables."`
	Tablets    tabletsCmd    `cmd:"" help:"List the tablets and who leads them."`
	Logs       logListCmd    `cmd:"" help:"List log directories and logs."`
	Log        logCmd        `cmd:"" help:"Make, append to, read and change logs."`
	Query      queryCmd      `cmd:"" help:"Ask for live state in SQL."`
	Bench      benchCmd      `cmd:"" help:"Put load on a running cluster."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
	Completion completionCmd `cmd:"" help:"Print a completion script for a shell."`
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	var c cli
	exit := -1
	parser, err := kong.New(&c,
		kong.Name("braid"),
		kong.Description("A distributed database and a distributed log in one binary.\n\nTry it:\n  braid demo\n  redis-cli set greeting hello"),
		kong.DefaultEnvars("BRAID"),
		kong.Configuration(loadYAML),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Exit(func(code int) { exit = code }),
		kong.UsageOnError(),
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, "braid:", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	ctx, err := parser.Parse(args)
	if exit >= 0 { // --help has printed
		return exit
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "braid: %v\nTry: braid --help\n", err)
		return exitUsage
	}
	if err := ctx.Run(parser.Model); err != nil {
		fmt.Fprintln(os.Stderr, "braid:", strings.TrimPrefix(err.Error(), "braid: ")) // the client says so too
		var usage *usageError
		if errors.As(err, &usage) {
			return exitUsage
		}
		return exitFailed
	}
	return 0
}

// usageError is an error in how the command was called.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func version() string {
	v := "devel"
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" && info.Main.Version != "(devel)" {
			v = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return v + " " + s.Value[:12]
			}
		}
	}
	return v
}

type versionCmd struct{}

// Help shows a typical call.
func (versionCmd) Help() string { return "Example:\n  braid version" }

// Run prints the version.
func (versionCmd) Run() error {
	fmt.Println("braid", version())
	return nil
}

// loadYAML makes a resolver of flags' values out of one flat YAML file. An unknown key is an error;
// a variable in the environment beats the file.
func loadYAML(r io.Reader) (kong.Resolver, error) {
	var values map[string]any
	if err := yaml.NewDecoder(r).Decode(&values); err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	return &fileValues{values}, nil
}

type fileValues struct{ values map[string]any }

// Validate refuses keys that are not flags of any command.
func (f *fileValues) Validate(app *kong.Application) error {
	known := map[string]bool{}
	var walk func(n *kong.Node)
	walk = func(n *kong.Node) {
		for _, flag := range n.Flags {
			known[flag.Name] = true
		}
		for _, child := range n.Children {
			walk(child)
		}
	}
	walk(app.Node)
	for key := range f.values {
		if !known[key] {
			return fmt.Errorf("configuration file: %q is not a setting; keys are the names of the flags", key)
		}
	}
	return nil
}

// Resolve gives the file's value of a flag, unless the environment has one.
func (f *fileValues) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, env := range flag.Envs {
		if _, set := os.LookupEnv(env); set {
			return nil, nil
		}
	}
	v, ok := f.values[flag.Name]
	if !ok {
		return nil, nil
	}
	if list, ok := v.([]any); ok {
		parts := make([]string, len(list))
		for i, e := range list {
			parts[i] = fmt.Sprint(e)
		}
		return strings.Join(parts, ","), nil
	}
	return fmt.Sprint(v), nil
}
