package settings

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent"
)

// Schema is the JSON Schema (draft 2020-12) of a configuration file. A test checks
// that it agrees with the table of keys.
//
//go:embed bgagent.schema.json
var Schema []byte

// SchemaURL is the address of the schema, for the key $schema in files.
const SchemaURL = "https://raw.githubusercontent.com/bgagent/bgagent/main/cmd/bgagent/internal/settings/bgagent.schema.json"

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON implements [json.Marshaler].
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(append(append(name, ':'), value...))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// makeSchema makes the schema of a configuration file.
func makeSchema() ([]byte, error) {
	limits, err := limitsSchema()
	if err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"$id", SchemaURL},
		{"title", "Configuration of the program bgagent"},
		{"type", "object"},
		{"additionalProperties", false},
		{"properties", object{
			{"$schema", object{{"type", "string"}}},
			{"background_task", limits},
			{"agents", agentsSchema()},
			{"notify", append(object{{"description", notifyKey.about}}, notifyKey.schema()...)},
			{"cluster", clusterSchema()},
		}},
	}, "", "  ")
	return append(b, '\n'), err
}

func agentsSchema() object {
	properties, cases := object{}, []any{}
	for i := range keys {
		k := &keys[i]
		properties = append(properties, member{k.name, append(object{{"description", k.about}}, k.schema()...)})
	}
	for _, kind := range kinds {
		then := object{{"propertyNames", object{{"enum", keysOf(Kind(kind))}}}}
		if need := required[Kind(kind)]; need != "" {
			then = append(then, member{"required", []string{need}})
		}
		is := object{{"required", []string{"kind"}}, {"properties", object{{"kind", object{{"const", kind}}}}}}
		cases = append(cases, object{{"if", is}, {"then", then}})
	}
	return object{
		{"description", "The agents by name. The value null removes what an earlier file says."},
		{"type", []string{"object", "null"}},
		{"propertyNames", object{{"pattern", `^\S+$`}, {"maxLength", 64}, {"not", object{{"const", "*"}}}}},
		{"additionalProperties", object{
			{"type", []string{"object", "null"}},
			{"additionalProperties", false},
			{"properties", properties},
			{"allOf", cases},
		}},
	}
}

// schema returns the schema of the key's value.
func (k *key) schema() object {
	text := object{{"type", "string"}, {"minLength", 1}}
	var value object
	switch k.shape {
	case shapeText:
		value = append(text, member{"pattern", `^[^\x00-\x1f\x7f-\x9f]*$`})
		if k.enum != nil {
			value = object{{"enum", k.enum}}
		}
	case shapeTexts:
		if k.name == "args" {
			text = object{{"type", "string"}}
		}
		value = object{{"type", "array"}, {"minItems", 1}, {"items", text}}
	case shapeBool:
		value = object{{"type", "boolean"}}
	case shapeReplicas:
		value = object{{"enum", []int{1, 3, 5}}}
	case shapeRules:
		action := object{{"enum", actions}}
		value = object{
			{"type", "object"},
			{"propertyNames", object{{"minLength", 1}}},
			{"additionalProperties", object{{"anyOf", []any{action, object{{"type", "object"}, {"additionalProperties", action}}}}}},
		}
	}
	return object{{"anyOf", []any{value, object{{"type", "null"}}}}}
}

// limitsSchema returns the schema of the library's section. The keys, their defaults, and whether a key can
// be 0 come from the library.
func limitsSchema() (object, error) {
	limit := object{{"type", []string{"integer", "null"}}, {"minimum", 0}}
	byName := object{{"type", []string{"object", "null"}}, {"propertyNames", object{{"pattern", `\S`}}}, {"additionalProperties", limit}}
	properties := object{
		{"modelConcurrency", append(object{{"description", `Sessions in a turn at once, by "provider/model" or model id. 0 for no limit.`}}, byName...)},
		{"providerConcurrency", append(object{{"description", "The same for all models of a provider together. 0 for no limit."}}, byName...)},
		{"agentConcurrency", append(object{{"description", "The same for each agent, whatever its model. 0 for no limit."}}, byName...)},
	}
	breaker := object{}
	for _, s := range (bgagent.FileConfig{}).Settings() {
		var standard any
		if err := json.Unmarshal([]byte(s.Value), &standard); err != nil {
			return nil, fmt.Errorf("the default of %s: %w", s.Key, err)
		}
		value := object{{"default", standard}}
		switch standard.(type) {
		case float64:
			value = append(value, member{"type", []string{"integer", "null"}}, member{"minimum", least(s.Key)})
		case bool:
			value = append(value, member{"type", []string{"boolean", "null"}})
		default:
			value = append(value, member{"enum", []any{"batch", "each", "never", nil}})
		}
		if name, nested := strings.CutPrefix(s.Key, breakerKey+"."); nested {
			breaker = append(breaker, member{name, value})
			continue
		}
		properties = append(properties, member{s.Key, value})
		if s.Key == "maxToolCalls" {
			breaker = append(breaker, member{s.Key, append(object{{"description", "Overrides the key maxToolCalls outside of this object."}}, value...)})
		}
	}
	properties = append(properties, member{breakerKey, object{{"type", []string{"object", "null"}}, {"properties", breaker}}})
	properties = append(properties, member{"budget", budgetSchema()}, member{"fallback", fallbackSchema()})
	return object{
		{"description", "Limits and times of the library, as in its documentation. Keys that end in Ms are milliseconds."},
		{"type", []string{"object", "null"}},
		{"properties", properties}, // without "additionalProperties": unknown keys are allowed, because a newer host might have them
	}, nil
}

// breakerKey is the key whose value is an object with the library's dotted keys.
const breakerKey = "circuitBreaker"

// budgetSchema returns the schema of the budgets.
func budgetSchema() object {
	whole := object{{"type", []string{"integer", "null"}}, {"minimum", 0}}
	limits := object{
		{"inputTokens", whole}, {"outputTokens", whole}, {"totalTokens", whole},
		{"cost", object{{"description", "US dollars. 0 for no limit."}, {"type", []string{"number", "null"}}, {"minimum", 0}, {"maximum", 1e9}}},
		{"toolCalls", whole},
	}
	period := member{"periodMs", append(object{{"description", "How long the budget counts before it starts over. With 0, it counts while a task is live."}}, whole...)}
	budget := func(about string, properties object) object {
		return object{{"description", about}, {"type", []string{"object", "null"}}, {"additionalProperties", false}, {"properties", properties}}
	}
	return budget("What tasks may use. 0 for no limit.", object{
		{"task", budget("What each task may use, over all its attempts.", limits)},
		{"tree", budget("What all tasks under a root session may use together.", append(limits[:len(limits):len(limits)], period))},
	})
}

// fallbackSchema returns the schema of the fallbacks.
func fallbackSchema() object {
	name := object{{"type", "string"}, {"pattern", `\S`}}
	return object{
		{"description", "For each model, the models with which its tasks continue if its provider refuses their requests."},
		{"type", []string{"object", "null"}},
		{"propertyNames", object{{"pattern", `\S`}}},
		{"additionalProperties", object{{"type", []string{"array", "null"}}, {"items", name}, {"uniqueItems", true}}},
	}
}

// The function "least" returns the minimum value that the library accepts for a key.
func least(key string) int {
	for n := range 2 {
		text := `"` + key + `":` + strconv.Itoa(n)
		if name, nested := strings.CutPrefix(key, breakerKey+"."); nested {
			text = `"` + breakerKey + `":{"` + name + `":` + strconv.Itoa(n) + `}`
		}
		if _, err := bgagent.ParseConfig("", []byte(`{"background_task":{`+text+`}}`)); err == nil {
			return n
		}
	}
	panic("settings: bug: neither 0 nor 1 is accepted for " + key)
}
