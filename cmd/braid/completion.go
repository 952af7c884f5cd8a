package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help shows how to use the script.
func (completionCmd) Help() string {
	return "Example:\n  source <(braid completion bash)"
}

// Run prints a script that completes commands and their flags.
func (c completionCmd) Run(app *kong.Application) error {
	var names []string
	flags := map[string][]string{}
	for _, n := range app.Children {
		names = append(names, n.Name)
		for _, f := range n.Flags {
			flags[n.Name] = append(flags[n.Name], "--"+f.Name)
		}
		for _, sub := range n.Children { // their flags are not told apart
			flags[n.Name] = append(flags[n.Name], sub.Name)
			for _, f := range sub.Flags {
				if !slices.Contains(flags[n.Name], "--"+f.Name) {
					flags[n.Name] = append(flags[n.Name], "--"+f.Name)
				}
			}
		}
	}
	switch c.Shell {
	case "fish":
		for _, n := range app.Children {
			fmt.Printf("complete -c braid -n __fish_use_subcommand -a %s -d %q\n", n.Name, n.Help)
			for _, f := range n.Flags {
				fmt.Printf("complete -c braid -n '__fish_seen_subcommand_from %s' -l %s -d %q\n", n.Name, f.Name, f.Help)
			}
			for _, sub := range n.Children {
				fmt.Printf("complete -c braid -n '__fish_seen_subcommand_from %s' -a %s -d %q\n", n.Name, sub.Name, sub.Help)
			}
		}
		return nil
	case "zsh":
		fmt.Println("autoload -U +X bashcompinit && bashcompinit")
	}
	fmt.Println("_braid() {\n  local words\n  if [ \"$COMP_CWORD\" = 1 ]; then words=\"" + strings.Join(names, " ") + "\"; else\n    case \"${COMP_WORDS[1]}\" in")
	for _, n := range names {
		fmt.Printf("      %s) words=%q ;;\n", n, strings.Join(flags[n], " "))
	}
	fmt.Println("    esac\n  fi\n  COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\ncomplete -o default -F _braid braid")
	return nil
}
