#!/usr/bin/env bash
# Regenerates the Go code of every .proto. Needs protoc, protoc-gen-go v1.36.12
# and protoc-gen-go-vtproto v0.6.1-0.20250313105119-ba97887b0a25 on PATH.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
protoc -I . --go_out=. --go_opt=module=github.com/braiddb/braid \
  --go-vtproto_out=. --go-vtproto_opt=module=github.com/braiddb/braid \
  --go-vtproto_opt=features=marshal+unmarshal_unsafe+unmarshal+size \
  internal/wire/*.proto
# Descriptors and the master's state are copied and compared as well.
protoc -I . --go_out=. --go_opt=module=github.com/braiddb/braid \
  --go-vtproto_out=. --go-vtproto_opt=module=github.com/braiddb/braid \
  --go-vtproto_opt=features=marshal+unmarshal_unsafe+unmarshal+size+clone+equal \
  internal/catalog/*.proto internal/master/*.proto internal/node/*.proto
# The generator names a local variable like our package: give that another name there.
sed -i 's#^\twire "github.com/braiddb/braid/internal/wire"#\tmessages "github.com/braiddb/braid/internal/wire"#; s#\bwire\.\([A-Z]\)#messages.\1#g' internal/master/master_vtproto.pb.go
gofmt -w internal/master/master_vtproto.pb.go
