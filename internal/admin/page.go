package admin

import "html/template"

// page is the console for people: one screen, no script, readable on a phone.
var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="refresh" content="5"><title>Braid · node {{.Node}}</title>
<style>
 :root{color-scheme:light dark;--line:#8884;--soft:#888}
 body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem}
 h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}
 .sub{color:var(--soft)}table{border-collapse:collapse;width:100%}
 th,td{text-align:left;padding:.35rem .75rem .35rem 0;border-bottom:1px solid var(--line)}
 th{font-weight:600;color:var(--soft)}td.n{font-variant-numeric:tabular-nums}
 .tag{display:inline-block;padding:0 .5rem;border-radius:1rem;border:1px solid var(--line)}
 .problem{border-left:4px solid #d33;padding:.25rem .75rem;margin:.5rem 0}
 .bar{display:flex;height:1.5rem;border:1px solid var(--line);border-radius:.3rem;overflow:hidden}
 .bar span{flex:1;border-right:1px solid var(--line);text-align:center;font-size:.75rem;line-height:1.5rem}
</style></head><body>
<h1>Braid</h1>
<p class="sub">cluster {{.ClusterID}} · seen from node {{.Node}} · {{.Version}} · up {{.Uptime}} · {{.Replication}}</p>
{{range .Problems}}<p class="problem">{{.}}</p>{{end}}
<h2>Nodes</h2>
<table><tr><th>node</th><th>state</th><th>redis</th><th>nodes</th><th>console</th><th>location</th><th>replicas</th><th>leaders</th></tr>
{{range .Nodes}}<tr><td class="n">{{.ID}}</td><td><span class="tag">{{.State}}</span></td><td>{{.Redis}}</td><td>{{.RPC}}</td><td><a href="http://{{.Console}}/">{{.Console}}</a></td><td>{{.Location}}</td><td class="n">{{.Replicas}}</td><td class="n">{{.Leaders}}</td></tr>
{{end}}</table>
<h2>Tablets</h2>
<div class="bar">{{range .Tablets}}<span title="tablet {{.ID}} of {{.Table}}, {{.Range}}">{{.ID}} · n{{.Leader}}</span>{{end}}</div>
<table><tr><th>tablet</th><th>table</th><th>hash range</th><th>leader</th><th>replicas on</th></tr>
{{range .Tablets}}<tr><td class="n">{{.ID}}</td><td>{{.Table}}</td><td>{{.Range}}</td><td class="n">{{if .Leader}}node {{.Leader}}{{else}}none{{end}}</td><td class="n">{{range .Replicas}}{{.}} {{end}}</td></tr>
{{end}}</table>
<p class="sub"><a href="/api/status">JSON</a> · <a href="/metrics">metrics</a> · <a href="/debug/pprof/">profiles</a></p>
</body></html>
`))
