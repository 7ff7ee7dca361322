package main

func Example() {
	main()
	// Output:
	// read 50 files: cancelled (budget), "file 10 is read"
	//    the task has used 1.00 of 1.00 US dollars, 10 of 100 tool calls
	// read 3 more: completed (turn ended), "all files are read"
	//    the task has used 1.30 of 1.50 US dollars, 12 of 100 tool calls
	// read 50 files again: cancelled (budget), "file 4 is read"
	//    the task has used 0.40 of 0.40 US dollars, 4 of 100 tool calls
	// read 80 files: cancelled (budget), "file 8 is read"
	//    the task has used 0.80 of 1.00 US dollars, 8 of 100 tool calls
	// read 1 file: refused: 2.50 of 2.50 US dollars
	//
	// warnings:
	// the task: 0.80 of 1.00 US dollars
	// the task: 1.20 of 1.50 US dollars
	// the task: 0.40 of 0.40 US dollars
	// all tasks: 2.00 of 2.50 US dollars
	// the task: 0.80 of 1.00 US dollars
}
