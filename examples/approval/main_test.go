package main

func Example() {
	main()
	// Output:
	// May I run a command?
	//    rm -r build
	//    allow or deny? allow
	// completed: I have run rm -r build
	// May I run a command?
	//    rm -r secrets
	//    allow or deny? deny
	// completed: I have kept the folder
}
