-- Everything that a role has, whoever gave it: a text for each privilege, attribute
-- and membership, and for each thing that hangs on the role and is neither.
--   $1  the role's name
WITH me AS (
  SELECT * FROM pg_roles WHERE rolname = $1
), dependency AS (
  SELECT d.* FROM pg_shdepend d JOIN me ON d.refclassid = 'pg_authid'::regclass AND d.refobjid = me.oid
), acl AS (
  SELECT 'DATABASE ' || format('"%s"', replace(o.datname, '"', '""')) AS object, '' AS part, o.datacl AS acl, d.objid, d.classid, d.objsubid
    FROM dependency d JOIN pg_database o ON d.classid = 'pg_database'::regclass AND d.objid = o.oid
   WHERE d.deptype = 'a'
  UNION ALL
  SELECT 'SCHEMA ' || format('"%s"', replace(o.nspname, '"', '""')), '', o.nspacl, d.objid, d.classid, d.objsubid
    FROM dependency d JOIN pg_namespace o ON d.classid = 'pg_namespace'::regclass AND d.objid = o.oid
   WHERE d.deptype = 'a' AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  UNION ALL
  SELECT CASE o.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || format('"%s"', replace(n.nspname, '"', '""')) || '.' || format('"%s"', replace(o.relname, '"', '""')),
         coalesce(' ("' || replace(t.attname, '"', '""') || '")', ''), CASE WHEN d.objsubid = 0 THEN o.relacl ELSE t.attacl END, d.objid, d.classid, d.objsubid
    FROM dependency d JOIN pg_class o ON d.classid = 'pg_class'::regclass AND d.objid = o.oid
    JOIN pg_namespace n ON n.oid = o.relnamespace
    LEFT JOIN pg_attribute t ON d.objsubid <> 0 AND t.attrelid = o.oid AND t.attnum = d.objsubid
   WHERE d.deptype = 'a' AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  UNION ALL
  SELECT 'ROUTINE ' || o.oid::regprocedure::text, '', o.proacl, d.objid, d.classid, d.objsubid
    FROM dependency d JOIN pg_proc o ON d.classid = 'pg_proc'::regclass AND d.objid = o.oid
   WHERE d.deptype = 'a' AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT a.privilege_type || acl.part || ' ON ' || acl.object || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS held
  FROM acl, me, aclexplode(acl.acl) a WHERE a.grantee = me.oid
UNION ALL
SELECT 'something of ' || d.classid::regclass || coalesce(' in database ' || quote_ident(b.datname), '')
  FROM dependency d LEFT JOIN pg_database b ON b.oid = d.dbid
 WHERE NOT EXISTS (SELECT FROM acl WHERE d.deptype = 'a' AND acl.classid = d.classid AND acl.objid = d.objid AND acl.objsubid = d.objsubid
                                     AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())))
UNION ALL
SELECT 'membership of ' || quote_ident(pg_get_userbyid(m.roleid)) FROM pg_auth_members m JOIN me ON m.member = me.oid
UNION ALL
SELECT attribute FROM me, (VALUES ('LOGIN'), ('SUPERUSER'), ('CREATEROLE'), ('CREATEDB'), ('REPLICATION'), ('BYPASSRLS')) a (attribute)
 WHERE CASE attribute WHEN 'LOGIN' THEN rolcanlogin WHEN 'SUPERUSER' THEN rolsuper WHEN 'CREATEROLE' THEN rolcreaterole
                      WHEN 'CREATEDB' THEN rolcreatedb WHEN 'REPLICATION' THEN rolreplication ELSE rolbypassrls END
UNION ALL
SELECT 'comment ' || shobj_description(me.oid, 'pg_authid') FROM me
