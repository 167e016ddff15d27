-- Lines of pg_hba.conf on which a minted login gets in without its password, and so
-- after the end of its VALID UNTIL too. With peer and ident it takes an account of
-- the operating system by the login's name, unless the line maps other names to it.
SELECT format('login without password by %s %s %s%s %s', h.type, array_to_string(h.database, ','), array_to_string(h.user_name, ','),
              coalesce(' ' || h.address, '') || coalesce(' ' || nullif(h.netmask, ''), ''), h.auth_method) AS name,
       format('change %s to scram-sha-256 in line %s of pg_hba.conf; then SELECT pg_reload_conf()', h.auth_method, h.line_number) AS close
FROM pg_hba_file_rules h
WHERE h.error IS NULL
  AND h.auth_method NOT IN ('scram-sha-256', 'md5', 'password', 'reject')
  AND (h.auth_method NOT IN ('peer', 'ident') OR array_to_string(h.options, ' ') ~ '(^| )map=')
  AND (h.database && ARRAY['all', current_database()::text] OR array_to_string(h.database, ' ') ~ '(^| )/')
  -- Logins have names that nobody can know before: all, a group or a pattern.
  AND ('all' = ANY (h.user_name) OR array_to_string(h.user_name, ' ') ~ '(^| )[+/]')
