"""What a sync needs, tried before a run needs it: settings, Connections, rights, clocks, logins."""
