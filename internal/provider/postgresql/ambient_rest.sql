-- What PUBLIC has besides, one row a right: what takes a superuser, a restart or a
-- rare hand to change, or too long to find for a mint to wait. Columns as in
-- ambient_live.sql, without covers.
--   $1  schemas that the grant itself opens
--   $2  roles that the grant is about besides
WITH system_right AS (
  -- The system's own catalogue, as far as it is more open than initdb, or the
  -- extension that it belongs to, has left it.
  SELECT CASE WHEN c.relkind = 'S' THEN 'sequence' ELSE 'table' END AS kind, c.oid::regclass::text AS name, '' AS attribute, a.privilege_type
  FROM pg_class c
  LEFT JOIN pg_init_privs i ON i.classoid = 'pg_class'::regclass AND i.objoid = c.oid AND i.objsubid = 0,
  aclexplode(c.relacl) a
  WHERE c.relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) AND c.oid < 16384 AND a.grantee = 0
    AND NOT EXISTS (SELECT FROM aclexplode(i.initprivs) b WHERE b.grantee = 0 AND b.privilege_type = a.privilege_type)
    -- The views of the information schema show everybody what is theirs; most have no entry.
    AND NOT (c.relnamespace = 'information_schema'::regnamespace AND a.privilege_type = 'SELECT')
  UNION ALL
  SELECT 'column', c.oid::regclass::text, t.attname, a.privilege_type
  FROM pg_attribute t
  JOIN pg_class c ON c.oid = t.attrelid
  LEFT JOIN pg_init_privs i ON i.classoid = 'pg_class'::regclass AND i.objoid = c.oid AND i.objsubid = t.attnum,
  aclexplode(t.attacl) a
  WHERE c.relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) AND c.oid < 16384
    AND t.attacl IS NOT NULL AND a.grantee = 0
    AND NOT EXISTS (SELECT FROM aclexplode(i.initprivs) b WHERE b.grantee = 0 AND b.privilege_type = a.privilege_type)
  UNION ALL
  -- A function without an entry is PUBLIC's already.
  SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, p.oid::regprocedure::text, '', a.privilege_type
  FROM pg_init_privs i
  JOIN pg_proc p ON i.classoid = 'pg_proc'::regclass AND p.oid = i.objoid,
  aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
  WHERE p.pronamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) AND p.oid < 16384 AND a.grantee = 0
    AND NOT EXISTS (SELECT FROM aclexplode(i.initprivs) b WHERE b.grantee = 0 AND b.privilege_type = a.privilege_type)
), found AS (
  SELECT format(CASE WHEN attribute = '' THEN '%1$s on %2$s %3$s' ELSE '%1$s on %2$s %3$s(%4$I)' END, privilege_type, kind, name, attribute) AS name,
         format(CASE WHEN attribute = '' THEN 'REVOKE %1$s ON %2$s %3$s FROM PUBLIC' ELSE 'REVOKE %1$s (%4$I) ON %3$s FROM PUBLIC' END,
                privilege_type, upper(kind), name, attribute) AS close, NULL::name AS stranger
  FROM system_right
  UNION ALL
  -- plpgsql alone is what every database comes with. An untrusted language is used
  -- by superusers only, whatever its entry says.
  SELECT format('USAGE on language %I', l.lanname), format('REVOKE USAGE ON LANGUAGE %I FROM PUBLIC', l.lanname), NULL
  FROM pg_language l, aclexplode(coalesce(l.lanacl, acldefault('l', l.lanowner))) a
  WHERE a.grantee = 0 AND l.lanispl AND l.lanpltrusted AND l.lanname <> 'plpgsql'
  UNION ALL
  SELECT format('USAGE on foreign server %I', s.srvname), format('REVOKE USAGE ON FOREIGN SERVER %I FROM PUBLIC', s.srvname), NULL
  FROM pg_foreign_server s, aclexplode(s.srvacl) a WHERE a.grantee = 0
  UNION ALL
  SELECT format('USAGE on foreign-data wrapper %I', w.fdwname), format('REVOKE USAGE ON FOREIGN DATA WRAPPER %I FROM PUBLIC', w.fdwname), NULL
  FROM pg_foreign_data_wrapper w, aclexplode(w.fdwacl) a WHERE a.grantee = 0
  UNION ALL
  SELECT format('user mapping of foreign server %I', m.srvname), format('DROP USER MAPPING FOR PUBLIC SERVER %I', m.srvname), NULL
  FROM pg_user_mappings m WHERE m.umuser = 0
  UNION ALL
  SELECT format('CREATE on tablespace %I', t.spcname), format('REVOKE CREATE ON TABLESPACE %I FROM PUBLIC', t.spcname), NULL
  FROM pg_tablespace t, aclexplode(t.spcacl) a WHERE a.grantee = 0
  UNION ALL
  SELECT format('%s on future %s of %I%s', a.privilege_type, k.kind, r.rolname, coalesce(' in schema ' || quote_ident(n.nspname), '')),
         format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE %s ON %s FROM PUBLIC', r.rolname,
                coalesce(' IN SCHEMA ' || quote_ident(n.nspname), ''), a.privilege_type, upper(k.kind)), r.rolname
  FROM pg_default_acl x
  JOIN pg_roles r ON r.oid = x.defaclrole
  LEFT JOIN pg_namespace n ON n.oid = x.defaclnamespace,
  aclexplode(x.defaclacl) a,
  LATERAL (SELECT CASE x.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions'
                                       WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' ELSE 'large objects' END AS kind) k
  -- A type alone gives access to nothing.
  WHERE a.grantee = 0 AND x.defaclobjtype <> 'T'
  UNION ALL
  SELECT 'every right on every large object (lo_compat_privileges)', 'ALTER SYSTEM RESET lo_compat_privileges; SELECT pg_reload_conf()', NULL
  WHERE current_setting('lo_compat_privileges')::boolean
  UNION ALL
  SELECT 'PREPARE TRANSACTION (max_prepared_transactions)', 'ALTER SYSTEM SET max_prepared_transactions = 0; then restart the server', NULL
  WHERE current_setting('max_prepared_transactions') <> '0'
)
SELECT f.name, f.close, coalesce(quote_ident(f.stranger), '') AS giver,
       f.stranger IS NULL
       OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = f.stranger AND (r.rolsuper OR r.rolname = current_user OR r.rolname = ANY ($2::text[])))
       OR EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = ANY ($1::text[]) AND pg_get_userbyid(n.nspowner) = f.stranger)
       OR EXISTS (SELECT FROM pg_database d WHERE d.datname = current_database() AND pg_get_userbyid(d.datdba) = f.stranger) AS stops
  FROM found f
