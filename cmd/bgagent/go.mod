module github.com/bgagent/bgagent/cmd/bgagent

go 1.26.0

require (
	github.com/bgagent/bgagent v0.0.0
	github.com/bgagent/bgagent/acp v0.0.0
	github.com/google/jsonschema-go v0.4.3
	github.com/stretchr/testify v1.12.1
	github.com/tailscale/hujson v0.0.0-20260727124030-b80ff77dac4f
)

require (
	github.com/coder/acp-go-sdk v0.13.0 // indirect
	github.com/google/uuid v1.6.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sync v0.24.0 // indirect
)
