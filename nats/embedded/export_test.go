package embedded

// StartWith is startWith for the tests of another package.
var StartWith = startWith
