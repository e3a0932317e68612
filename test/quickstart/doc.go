// Package quickstart runs the built program as a person does, and ends it as
// hard as can be: kill -9 while it writes, SIGTERM at any moment.
package quickstart
