package main

import (
	"fmt"
	"net"
	"strings"
)

// sayHow prints the commands and settings that connect common clients to the server. If
// there are tokens, it prints them once for each caller.
func (c *serveCmd) sayHow(addr net.Addr) {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "HOST" // the caller must insert an address under which it reaches this machine
	}
	url := "http://" + net.JoinHostPort(host, port) + "/mcp"
	if len(c.Token) == 0 {
		fmt.Print(pasteLines(url, "", ""))
		return
	}
	for _, t := range c.Token {
		name, from, _ := strings.Cut(t, "=")
		fmt.Print(pasteLines(url, name, from))
	}
}

// pasteLines returns the commands and settings for one caller. The argument "from" is the name of the
// variable that holds the caller's token, or an @ followed by the path of the file that holds the token. If
// there are no tokens, this argument is empty.
func pasteLines(url, caller, from string) string {
	var b strings.Builder
	title, header, variable, file := "to use it from", "", "", ""
	if from != "" {
		title = "to use it as " + caller + " from"
		header, variable, file = "$"+from, from, "{env:"+from+"}"
		if path, ok := strings.CutPrefix(from, "@"); ok {
			header, variable, file = "$(cat "+path+")", "BGAGENT_TOKEN", "{file:"+path+"}"
		}
	}
	fmt.Fprintf(&b, "%s\n", title)
	line := func(client, text string) { fmt.Fprintf(&b, "  %-9s %s\n", client+":", text) }
	if header == "" {
		line("claude", "claude mcp add --transport http bgagent "+url)
		line("codex", "codex mcp add bgagent --url "+url)
		line("gemini", "gemini mcp add --transport http bgagent "+url)
		line("opencode", fmt.Sprintf(`"mcp": { "bgagent": { "type": "remote", "url": %q } } in opencode.json`, url))
		return b.String()
	}
	bearer := `"Authorization: Bearer ` + header + `"`
	line("claude", "claude mcp add --transport http bgagent "+url+" --header "+bearer)
	line("codex", "codex mcp add bgagent --url "+url+" --bearer-token-env-var "+variable)
	line("gemini", "gemini mcp add --transport http bgagent "+url+" --header "+bearer)
	line("opencode", fmt.Sprintf(`"mcp": { "bgagent": { "type": "remote", "url": %q, "headers": { "Authorization": "Bearer %s" } } } in opencode.json`, url, file))
	return b.String()
}
