package rest

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// example is a request of docs/http.md, and how it is answered.
type example struct {
	line, method, path, body string
	headers                  []string
	code                     int
	answer                   string
}

// TestTheExamplesOfTheGuide sends every curl of docs/http.md in its order, and
// compares the answers; "..." in them stands for anything.
func TestTheExamplesOfTheGuide(t *testing.T) {
	text, err := os.ReadFile("../../../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, Options{})
	examples := examplesOf(t, string(text))
	if len(examples) < 20 {
		t.Fatalf("only %d examples were found", len(examples))
	}
	for _, e := range examples {
		a := l.do(e.method, e.path, e.body, e.headers...)
		if got := strings.TrimSpace(a.body); a.code != e.code || !pattern(e.answer).MatchString(got) {
			t.Errorf("%s\n got  %d %s\n want %d %s", e.line, a.code, got, e.code, e.answer)
		}
	}
}

// pattern matches an answer of the guide.
func pattern(want string) *regexp.Regexp {
	q := regexp.QuoteMeta(want)
	q = strings.ReplaceAll(q, `\{\.\.\.\}`, `\{[^{}]*\}`)
	q = strings.ReplaceAll(q, `"\.\.\."`, `"(?:[^"\\]|\\.)*"`)
	q = strings.ReplaceAll(q, `\.\.\.`, `\d+`)
	return regexp.MustCompile(`^` + q + `$`)
}

func examplesOf(t *testing.T, text string) (list []example) {
	t.Helper()
	answer := regexp.MustCompile(`^(\d{3}) (.*)$`)
	inside := false
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "```") {
			inside = !inside
		}
		if rest, ok := strings.CutPrefix(line, "$ curl "); ok && inside {
			list = append(list, curl(t, line, words(rest)))
		} else if m := answer.FindStringSubmatch(line); m != nil && inside {
			e := &list[len(list)-1]
			fmt.Sscan(m[1], &e.code)
			if e.answer != "" {
				e.answer += "\n"
			}
			e.answer += m[2]
		}
	}
	return list
}

// curl reads the arguments that the guide uses.
func curl(t *testing.T, line string, args []string) example {
	t.Helper()
	e := example{line: line, method: "GET"}
	explicit := ""
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-N":
		case "-X":
			i++
			explicit = args[i]
		case "-H":
			i++
			e.headers = append(e.headers, args[i])
		case "-d":
			i++
			e.method, e.body = "POST", args[i]
			e.headers = append([]string{"Content-Type: application/x-www-form-urlencoded"}, e.headers...)
		default:
			path, ok := strings.CutPrefix(args[i], "localhost:7000")
			if !ok || e.path != "" {
				t.Fatalf("%s: %q is not understood", line, args[i])
			}
			e.path = path
		}
	}
	if explicit != "" {
		e.method = explicit
	}
	return e
}

// words splits a line as a shell does that knows single quotes.
func words(s string) (list []string) {
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		end := " "
		if s[0] == '\'' {
			s, end = s[1:], "'"
		}
		word, rest, _ := strings.Cut(s, end)
		list, s = append(list, word), rest
	}
	return list
}
