package opencode

import "encoding/json"

// What the server sends and takes, as far as it is used. Fields that are not
// named here are ignored, and so are kinds of parts and events.

type wireError struct {
	Name string `json:"name"`
	Data struct {
		Message string `json:"message"`
	} `json:"data"`
}

type wireModel struct {
	ProviderID string `json:"providerID"`
	ModelID    string `json:"modelID"`
}

type wireRule struct {
	Permission string `json:"permission"`
	Pattern    string `json:"pattern"`
	Action     string `json:"action"`
}

type wireNewSession struct {
	ParentID   string     `json:"parentID,omitempty"`
	Title      string     `json:"title,omitempty"`
	Agent      string     `json:"agent,omitempty"`
	Permission []wireRule `json:"permission,omitempty"`
}

type wireSession struct {
	ID        string `json:"id"`
	ParentID  string `json:"parentID"`
	Directory string `json:"directory"`
	Agent     string `json:"agent"`
	Model     *struct {
		ID         string `json:"id"`
		ProviderID string `json:"providerID"`
	} `json:"model"`
	Time struct {
		Created int64 `json:"created"`
	} `json:"time"`
}

type wirePrompt struct {
	MessageID string         `json:"messageID"`
	Agent     string         `json:"agent,omitempty"`
	Model     *wireModel     `json:"model,omitempty"`
	System    string         `json:"system,omitempty"`
	Parts     []wireTextPart `json:"parts"`
}

type wireTextPart struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Text string `json:"text"`
}

type wireStatus struct {
	Type    string `json:"type"`
	Message string `json:"message"`
	Next    int64  `json:"next"` // milliseconds since 1970
}

type wireMessage struct {
	Info  wireInfo   `json:"info"`
	Parts []wirePart `json:"parts"`
}

type wireInfo struct {
	ID      string `json:"id"`
	Role    string `json:"role"`
	Summary any    `json:"summary"` // true for the assistant's own account of what was left out
	Time    struct {
		Created   int64 `json:"created"`
		Completed int64 `json:"completed"`
	} `json:"time"`
	Error  *wireError `json:"error"`
	Finish string     `json:"finish"`
	Cost   float64    `json:"cost"`
	Tokens struct {
		Input     int64 `json:"input"`
		Output    int64 `json:"output"`
		Reasoning int64 `json:"reasoning"`
		Cache     struct {
			Read  int64 `json:"read"`
			Write int64 `json:"write"`
		} `json:"cache"`
	} `json:"tokens"`
}

type wirePart struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Text    string `json:"text"`
	Ignored bool   `json:"ignored"`
	CallID  string `json:"callID"`
	Tool    string `json:"tool"`
	State   struct {
		Status string `json:"status"`
	} `json:"state"`
}

type wireTodo struct {
	Content string `json:"content"`
	Status  string `json:"status"`
}

type wireAgent struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Hidden      bool   `json:"hidden"`
}

type wirePermission struct {
	ID         string          `json:"id"`
	SessionID  string          `json:"sessionID"`
	Permission string          `json:"permission"`
	Patterns   []string        `json:"patterns"`
	Metadata   json.RawMessage `json:"metadata"`
}

type wireReply struct {
	Reply   string `json:"reply"`
	Message string `json:"message,omitempty"`
}

// wireEvent is one event of the stream of all directories.
type wireEvent struct {
	Directory string `json:"directory"`
	Payload   struct {
		Type       string          `json:"type"`
		Properties json.RawMessage `json:"properties"`
	} `json:"payload"`
}

// wireProperties are those of all the events that are looked at.
type wireProperties struct {
	ID         string       `json:"id"` // of a question
	SessionID  string       `json:"sessionID"`
	Status     *wireStatus  `json:"status"`
	Error      *wireError   `json:"error"`
	Todos      []wireTodo   `json:"todos"`
	Info       *wireSession `json:"info"`
	Permission string       `json:"permission"`
	Patterns   []string     `json:"patterns"`
	Metadata   json.RawMessage
}
