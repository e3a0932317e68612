package objstore

// TryFlock is tryFlock for the tests outside the package.
var TryFlock = tryFlock
