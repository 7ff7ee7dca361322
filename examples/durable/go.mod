module github.com/bgagent/bgagent/examples/durable

go 1.26.0

require (
	github.com/bgagent/bgagent v0.0.0
	github.com/bgagent/bgagent/sqlite v0.0.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/google/uuid v1.6.0 // indirect
	github.com/ncruces/go-sqlite3 v0.37.0 // indirect
	github.com/ncruces/go-sqlite3-wasm/v6 v6.5.35401 // indirect
	github.com/ncruces/julianday v1.0.0 // indirect
	github.com/tailscale/hujson v0.0.0-20260727124030-b80ff77dac4f // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace (
	github.com/bgagent/bgagent => ../..
	github.com/bgagent/bgagent/sqlite => ../../sqlite
)
