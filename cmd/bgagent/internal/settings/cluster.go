package settings

import (
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonc"
)

// Cluster is the value of the key "cluster": the servers through which several processes of "bgagent
// serve" share their limits and show each other's tasks. The paths are absolute, or empty.
type Cluster struct {
	URL             string `json:"url"`
	Name            string `json:"name,omitempty"`
	CredentialsFile string `json:"credentialsFile,omitempty"`
	CAFile          string `json:"caFile,omitempty"`
	CertFile        string `json:"certFile,omitempty"`
	KeyFile         string `json:"keyFile,omitempty"`
	Replicas        int    `json:"replicas,omitempty"` // 0 means the default
	TakeOver        *bool  `json:"takeOver,omitempty"` // nil means the default; see TakesOver

	origin bgagent.Origin
}

// Origin returns where the cluster was set.
func (c *Cluster) Origin() bgagent.Origin { return c.origin }

// TakesOver reports whether the processes take over each other's tasks.
func (c *Cluster) TakesOver() bool { return c.TakeOver == nil || *c.TakeOver }

// String returns the value as it would be written in a file.
func (c *Cluster) String() string {
	b, err := json.Marshal(c)
	if err != nil {
		panic("settings: bug: a cluster cannot be written: " + err.Error())
	}
	return string(b)
}

// clusterAbout describes the key "cluster".
const clusterAbout = `The NATS servers of a cluster. Every "bgagent serve" with the same servers and name shares its limits with the others and shows their tasks. The tasks are kept on the servers. Other commands do not use this key.`

// clusterKeys is the table of the keys of "cluster". The schema is generated from this table.
var clusterKeys = []key{
	{"url", shapeText, nil, nil, "The servers, such as nats://10.0.0.1,nats://10.0.0.2,nats://10.0.0.3, without user names and passwords."},
	{"name", shapeText, nil, nil, "Name of the cluster: 1 to 24 letters, digits and hyphens. Default bgagent."},
	{"credentialsFile", shapeText, nil, nil, "File with the credentials, as nsc writes it. Only you may be able to read it. Relative to the file that names it; ~/ is the home directory."},
	{"caFile", shapeText, nil, nil, "File with the certificates of the authorities that sign the servers' certificates. Default: those of the system."},
	{"certFile", shapeText, nil, nil, "File with the certificate of this process, if the servers ask for one."},
	{"keyFile", shapeText, nil, nil, "File with the key of certFile. Only you may be able to read it."},
	{"replicas", shapeReplicas, nil, nil, "Number of servers that keep a copy of the tasks. Default: 3 if url names at least three servers, otherwise 1."},
	{"takeOver", shapeBool, nil, nil, "Whether this process and the others take over each other's tasks when one of them dies, if the same agents keep their sessions in the same place. Default true."},
}

// replicas lists the allowed values of the key "replicas", as they are written in a file.
var replicas = []string{"1", "3", "5"}

// path returns the field of a key whose value is a path, or nil.
func (c *Cluster) path(name string) *string {
	return map[string]*string{"credentialsFile": &c.CredentialsFile, "caFile": &c.CAFile, "certFile": &c.CertFile, "keyFile": &c.KeyFile}[name]
}

// clusterName matches the valid names of clusters.
var clusterName = regexp.MustCompile(clusterPattern)

const clusterPattern = `^[A-Za-z0-9-]{1,24}$`

// takeCluster reads the key "cluster". Its value replaces the value from an earlier file.
func (l *loader) takeCluster(m jsonc.Member) {
	l.cluster = nil
	if m.Value.IsNull() {
		return
	}
	members, ok := m.Value.Members()
	if !ok {
		l.fail(m.Value.Errorf("cluster", `is %s; it must be an object like { "url": "nats://10.0.0.1" }, or null`, m.Value.Describe()))
		return
	}
	c := &Cluster{origin: bgagent.Origin(m.At())}
	has := map[string]bool{}
	l.once("cluster", members, func(k jsonc.Member) {
		has[k.Name] = has[k.Name] || !k.Value.IsNull()
		if err := c.take(k); err != nil {
			l.fail(err)
		}
	})
	switch {
	case !has["url"]:
		l.fail(m.Errorf("cluster", `has no url; write, for example, "url": "nats://10.0.0.1"`))
	case has["certFile"] != has["keyFile"]:
		l.fail(m.Errorf("cluster", "has only one of certFile and keyFile; write both or neither"))
	}
	l.cluster = c
}

// take reads one key of "cluster".
func (c *Cluster) take(m jsonc.Member) error {
	at := jsonc.Key("cluster", m.Name)
	i := slices.IndexFunc(clusterKeys, func(k key) bool { return k.name == m.Name })
	if i < 0 {
		var names []string
		for _, k := range clusterKeys {
			names = append(names, k.name)
		}
		remedy := "the keys of a cluster are " + strings.Join(names, ", ")
		if near := nearest(m.Name, names); near != "" {
			remedy = "did you mean " + near + "?"
		}
		return m.Errorf(at, "is not a known key; %s", remedy)
	}
	if m.Value.IsNull() {
		return nil
	}
	if err := check(&clusterKeys[i], at, m.Value); err != nil {
		return err
	}
	text, _ := m.Value.Text()
	switch path := c.path(m.Name); {
	case path != nil:
		abs, err := pathIn(text, m.At().File)
		if err != nil {
			return m.Value.Errorf(at, "%s", err)
		}
		*path = abs
	case m.Name == "url":
		if problem := badServers(text); problem != "" {
			return m.Value.Errorf(at, "%s", problem)
		}
		c.URL = text
	case m.Name == "name":
		if !clusterName.MatchString(text) {
			return m.Value.Errorf(at, "is %s; it must have 1 to 24 letters, digits and hyphens", m.Value.Describe())
		}
		c.Name = text
	case m.Name == "takeOver":
		is, _ := m.Value.Bool()
		c.TakeOver = &is
	default:
		n, _ := m.Value.Number()
		c.Replicas = int(n[0] - '0') // the function "check" allows only the numbers in the variable "replicas"
	}
	return nil
}

// badServers describes what is wrong with the servers' address. If the address is valid, it returns
// "". The description does not contain passwords.
func badServers(text string) string {
	for one := range strings.SplitSeq(text, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		switch {
		case strings.Contains(one, "@"):
			return "contains a user name, a password or a token, and bgagent config prints this value; write the credentials into a file of mode 0600, and name it with credentialsFile"
		case err != nil || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) || u.Hostname() == "":
			return "is not a list of addresses such as nats://10.0.0.1:4222,nats://10.0.0.2:4222"
		}
	}
	return ""
}

// clusterSchema returns the schema of the key "cluster".
func clusterSchema() object {
	properties := object{}
	for i := range clusterKeys {
		k := &clusterKeys[i]
		value := k.schema()
		switch k.name {
		case "url":
			value = object{{"type", "string"}, {"pattern", `^ *(nats|tls|wss?)://[^@,/ ]+/? *(, *(nats|tls|wss?)://[^@,/ ]+/? *)*$`}}
		case "name":
			value = object{{"type", []string{"string", "null"}}, {"pattern", clusterPattern}}
		}
		properties = append(properties, member{k.name, append(object{{"description", k.about}}, value...)})
	}
	both := func(a, b string) object { return object{{a, []string{b}}} }
	return object{
		{"description", clusterAbout},
		{"type", []string{"object", "null"}},
		{"required", []string{"url"}},
		{"additionalProperties", false},
		{"dependentRequired", append(both("certFile", "keyFile"), both("keyFile", "certFile")...)},
		{"properties", properties},
	}
}
