-- Who may do what: nobody but the owner, until the owner grants it.

revoke all on all routines in schema @extschema@ from public;
