package main

// perKiB is how many units of the maximum resident set make a KiB.
const perKiB = 1
