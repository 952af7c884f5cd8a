package rest

import (
	"net/http"
	"strings"
)

// route is what can be done with one resource by one method.
type route struct {
	resource, method string
	named            naming
	parameters       string // that it has, between blanks
	reads            bool   // counts against Options.Readers
	serve            func(*Server, http.ResponseWriter, *request) error
}

// naming says whether a name follows the resource.
type naming uint8

const (
	unnamed naming = iota
	named
	maybeNamed
)

const (
	appendParameters = "if_tail producer sequence find_key filter_key timeout"
	readParameters   = "from until limit wait follow filter_key filter_to encoding payload format"
)

var routes = []route{
	{"records", http.MethodPost, named, appendParameters, false, (*Server).appendRecords},
	{"records", http.MethodGet, named, readParameters, true, (*Server).readRecords},
	{"records", http.MethodDelete, named, "until", false, (*Server).trim},
	{"tail", http.MethodGet, named, "", false, (*Server).tail},
	{"head", http.MethodGet, named, "", false, (*Server).head},
	{"empty", http.MethodGet, named, "", false, (*Server).empty},
	{"size", http.MethodGet, named, "from to", false, (*Server).size},
	{"find", http.MethodGet, named, "time key approximate", false, (*Server).find},
	{"logs", http.MethodGet, maybeNamed, "recursive attributes sources", false, (*Server).describeLogs},
	{"logs", http.MethodPut, named, "", false, (*Server).createLogs},
	{"logs", http.MethodPatch, maybeNamed, "", false, (*Server).alterLogs},
	{"logs", http.MethodDelete, named, "recursive if_version", false, (*Server).removeLogs},
	{"rename", http.MethodPost, unnamed, "", false, (*Server).renameLogs},
}

// routeOf finds the row of a request, and the name in its path.
func routeOf(r *http.Request) (*route, string, error) {
	below, ok := strings.CutPrefix(r.URL.Path, "/v1/")
	if !ok {
		return nil, "", refuse(http.StatusNotFound, "not_found", "nothing is served at %q; see docs/http.md", r.URL.Path)
	}
	resource, name, _ := strings.Cut(below, "/")
	var allow []string
	for i := range routes {
		row := &routes[i]
		fits := row.named == maybeNamed || (row.named == named) == (name != "")
		switch {
		case row.resource != resource || !fits:
		case row.method == r.Method:
			return row, name, nil
		default:
			allow = append(allow, row.method)
		}
	}
	if len(allow) == 0 {
		return nil, "", refuse(http.StatusNotFound, "not_found", "nothing is served at %q; see docs/http.md", r.URL.Path)
	}
	p := refuse(http.StatusMethodNotAllowed, "method_not_allowed", "%s is not for %s; use %s", r.Method, r.URL.Path, strings.Join(allow, " or "))
	p.allow = strings.Join(allow, ", ")
	return nil, "", p
}
