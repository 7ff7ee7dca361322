module github.com/bgagent/bgagent/acp

go 1.26.0

require (
	github.com/bgagent/bgagent v0.0.0
	github.com/coder/acp-go-sdk v0.13.0
	github.com/google/uuid v1.6.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/tailscale/hujson v0.0.0-20260727124030-b80ff77dac4f // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)

replace github.com/bgagent/bgagent => ../
