package acp

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/bgagent/bgagent"
	sdk "github.com/coder/acp-go-sdk"
)

// mcpServers returns the MCP servers of a session.
func (c *Client) mcpServers(spec bgagent.SessionSpec) []MCPServer {
	if c.cfg.MCPServers == nil {
		return nil
	}
	return c.cfg.MCPServers(spec)
}

// mcpServers converts the servers to the protocol's types. The result is never nil, because the
// protocol does not allow null.
func (p *process) mcpServers(list []MCPServer) ([]sdk.McpServer, error) {
	out := []sdk.McpServer{}
	for _, s := range list {
		bad := func(why string) error { return fmt.Errorf("acp: the MCP server %q: %s", s.Name, why) }
		switch {
		case s.Name == "":
			return nil, errors.New("acp: an MCP server has no name; set MCPServer.Name")
		case (len(s.Command) > 0) == (s.URL != ""):
			return nil, bad("set either Command or URL")
		case s.URL != "" && !p.init.AgentCapabilities.McpCapabilities.Http:
			return nil, bad("the agent connects only to servers that are commands, not to URLs")
		case s.URL != "":
			h := &sdk.McpServerHttpInline{Name: s.Name, Type: "http", Url: s.URL, Headers: []sdk.HttpHeader{}}
			for _, k := range slices.Sorted(maps.Keys(s.Headers)) {
				h.Headers = append(h.Headers, sdk.HttpHeader{Name: k, Value: s.Headers[k]})
			}
			out = append(out, sdk.McpServer{Http: h})
		default:
			st := &sdk.McpServerStdio{Name: s.Name, Command: s.Command[0], Args: append([]string{}, s.Command[1:]...), Env: []sdk.EnvVariable{}}
			for _, k := range slices.Sorted(maps.Keys(s.Env)) {
				st.Env = append(st.Env, sdk.EnvVariable{Name: k, Value: s.Env[k]})
			}
			out = append(out, sdk.McpServer{Stdio: st})
		}
	}
	return out, nil
}
