-- What keeps a role from being dropped, in this database and in what the server shares:
-- a description, whose it is, and the statement with which its owner, or a superuser,
-- removes it.
--   $1  the role's name
WITH me AS (
  SELECT oid, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = $1
), found AS (
  SELECT d.classid, d.objid, d.objsubid, d.deptype, d.dbid, me.name AS me, i.type, i.identity
    FROM pg_shdepend d JOIN me ON d.refclassid = 'pg_authid'::regclass AND d.refobjid = me.oid,
         LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
   WHERE d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
)
SELECT coalesce(pg_describe_object(f.classid, f.objid, f.objsubid), 'an object that is gone') AS what,
       coalesce((SELECT quote_ident(pg_get_userbyid(o.refobjid)) FROM pg_shdepend o
                  WHERE o.classid = f.classid AND o.objid = f.objid AND o.dbid = f.dbid AND o.deptype = 'o' LIMIT 1), 'a superuser') AS owner,
       CASE
         WHEN f.deptype <> 'a' THEN format('DROP OWNED BY %s CASCADE', f.me)
         WHEN f.type = 'table column' THEN (SELECT format('REVOKE ALL (%I) ON TABLE %s FROM %s CASCADE', t.attname, f.objid::regclass, f.me)
                                              FROM pg_attribute t WHERE t.attrelid = f.objid AND t.attnum = f.objsubid)
         WHEN f.type = 'default acl' THEN regexp_replace(f.identity, '^(.*) on ([a-z ]+)$', 'ALTER DEFAULT PRIVILEGES \1 REVOKE ALL ON \2 FROM ') || f.me
         ELSE format('REVOKE ALL ON %s %s FROM %s CASCADE',
                     CASE f.type WHEN 'view' THEN 'TABLE' WHEN 'materialized view' THEN 'TABLE' WHEN 'foreign table' THEN 'TABLE'
                                 WHEN 'procedure' THEN 'ROUTINE' WHEN 'aggregate' THEN 'ROUTINE' WHEN 'function' THEN 'ROUTINE'
                                 WHEN 'server' THEN 'FOREIGN SERVER' WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER' WHEN 'parameter ACL' THEN 'PARAMETER' ELSE upper(f.type) END,
                     f.identity, f.me)
       END AS statement
  FROM found f
 ORDER BY f.classid, f.objid, f.objsubid
