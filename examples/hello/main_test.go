package main

func Example() {
	main()
	// Unordered output:
	// completed: you said: hello
	// completed: you said: good bye
}
