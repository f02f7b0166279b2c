"""A hosting server's files, as years of volunteers left them: written under a folder that stands for its `/`."""

from pathlib import Path, PurePosixPath

APACHE2 = """\
# global
DefaultRuntimeDir ${APACHE_RUN_DIR}
User ${APACHE_RUN_USER}
Group ${APACHE_RUN_GROUP}
IncludeOptional mods-enabled/*.load
IncludeOptional mods-enabled/*.conf
Include ports.conf
<Directory />
\tOptions FollowSymLinks
</Directory>
LogFormat "%h %l %u %t \\"%r\\" %>s %O" common
IncludeOptional conf-enabled/*.conf
IncludeOptional sites-enabled/*.conf
"""
ENVVARS = """\
unset HOME
if [ "${APACHE_CONFDIR##/etc/apache2-}" != "${APACHE_CONFDIR}" ] ; then
        SUFFIX="-${APACHE_CONFDIR##/etc/apache2-}"
else
        SUFFIX=
fi
export APACHE_RUN_USER=www-data
export APACHE_RUN_GROUP=www-data
export APACHE_RUN_DIR=/var/run/apache2$SUFFIX
export APACHE_LOG_DIR=/var/log/apache2$SUFFIX
: ${SITES:=/srv/sites}
export SITES
"""
HUERTO = """\
<VirtualHost *:80>
    ServerName www.huerto.example
    ServerAlias huerto.example
    Redirect permanent / https://huerto.example/
</VirtualHost>
<IfModule mod_ssl.c>
<VirtualHost 203.0.113.7:443 [2001:db8::7]:443>
    ServerName huerto.example:443
    ServerAlias www.huerto.example huerta.example \\
        *.huerto.example
    DocumentRoot "/home/huerto/public_html"
    ErrorLog ${APACHE_LOG_DIR}/huerto.log
    <IfModule mpm_itk_module>
        AssignUserID huerto huerto
    </IfModule>
    <FilesMatch "\\.php$">
        SetHandler "proxy:unix:/var/run/php/huerto.sock|fcgi://localhost"
    </FilesMatch>
    SSLEngine on
</VirtualHost>
</IfModule>
"""
MACRO = """\
<Macro Site $name $user>
  <VirtualHost *:80>
    ServerName $name
    ServerAlias www.$name
    DocumentRoot ${SITES}/$user/web
    ProxyPassMatch "^/(.*\\.php(/.*)?)$" "unix:/run/php/$user.sock|fcgi://localhost${SITES}/$user/web/"
  </VirtualHost>
</Macro>
Use Site radio.example radio
Use Site muñeca.example teatro
UndefMacro Site
"""
NGINX = """\
user www-data;
worker_processes auto;
include /etc/nginx/modules-enabled/*.conf;
events { worker_connections 768; }
http {
    include /etc/nginx/mime.types;
    log_format main '$remote_addr - "$request" {not a block}; # not a comment';
    upstream php-libro { server unix:/run/php/libro.sock; }
    include /etc/nginx/conf.d/*.conf;
    include /etc/nginx/sites-enabled/*;
}
"""
LIBRO = """\
server {
    listen 80;
    listen [::]:80;
    server_name libro.example www.libro.example;
    return 301 https://$host$request_uri;
}
server {
    listen 443 ssl;
    server_name "libro.example" www.libro.example "~^(?<lang>[a-z]{2})\\.libro\\.example$";
    root /srv/sites/libro/public;  # the new one
    location / { try_files $uri /index.php?$args; }
    location ~ [^/]\\.php(/|$) {
        include snippets/fastcgi-php.conf;
        fastcgi_pass php-libro;
    }
    location ~ /\\.ht { deny all; }
}
server { listen 80; server_name libros.example; return 301 https://libro.example$request_uri; }
"""
DEFAULT = """\
server {
    listen 80 default_server;
    root /var/www/html;
    server_name _;
    location / { try_files $uri $uri/ =404; }
}
"""
POOL = """\
; a comment with [brackets]
[{user}]
user = {user}
group = {user}
listen = /run/php/$pool.sock
listen.owner = www-data
pm = ondemand
pm.max_children = 5
php_admin_value[open_basedir] = /home/{user}:/tmp
"""
PASSWD = """\
root:x:0:0:root:/root:/bin/bash
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
huerto:x:1001:1001:Huerto Comunitario,,,:/home/huerto:/bin/bash
radio:x:1002:1002:Radio Libre:/srv/sites/radio:/bin/false
teatro:x:1003:1003::/srv/sites/teatro:/bin/false
libro:x:1004:1004:Libro: abierto:/srv/sites/libro:/bin/false
libro:x:1004:1004:Cooperativa del Libro,,,:/srv/sites/libro:/bin/false
+::::::
"""
WORDPRESS = """\
<?php
/** The name of the database for WordPress */
// define( 'DB_NAME', 'old' );
define( 'DB_NAME', 'huerto_wp' );
define( 'DB_USER', 'huerto' );
define('DB_PASSWORD', 'never printed');
define( 'DB_HOST', 'localhost:/run/mysqld/mysqld.sock' );
"""
DRUPAL = """\
<?php
/**
 * @code
 * $databases['default']['default'] = ['database' => 'databasename'];
 * @endcode
 */
# 'database' => 'commented',
$databases['default']['default'] = array (
  'database' => 'libro_d10',
  'username' => 'libro',
  'host' => '127.0.0.1',
);
"""
MODULES = ("ssl", "proxy", "proxy_fcgi", "macro")

TREE = {
    "/etc/hostname": "web7\n",
    "/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 web7.coop.example web7\n",
    "/etc/passwd": PASSWD,
    "/usr/sbin/apache2": "",
    "/usr/sbin/nginx": "",
    "/etc/apache2/apache2.conf": APACHE2,
    "/etc/apache2/envvars": ENVVARS,
    "/etc/apache2/ports.conf": "Listen 80\n<IfModule ssl_module>\n\tListen 443\n</IfModule>\n",
    "/etc/apache2/sites-available/huerto.conf": HUERTO,
    "/etc/apache2/sites-available/macro.conf": MACRO,
    "/etc/apache2/sites-enabled/000-default.conf": (
        "<VirtualHost *:80>\n#ServerName www.example.com\nDocumentRoot /var/www/html\n</VirtualHost>\n"
    ),
    "/etc/nginx/nginx.conf": NGINX,
    "/etc/nginx/sites-enabled/default": DEFAULT,
    "/etc/nginx/sites-enabled/libro": LIBRO,
    "/etc/nginx/snippets/fastcgi-php.conf": "fastcgi_index index.php;\ninclude fastcgi.conf;\n",
    "/etc/nginx/fastcgi.conf": "fastcgi_param QUERY_STRING $query_string;\n",
    "/etc/nginx/mime.types": "types { text/html html htm; }\n",
    "/etc/php/7.4/fpm/php-fpm.conf": "[global]\ninclude=/etc/php/7.4/fpm/pool.d/*.conf\n",
    "/etc/php/8.2/fpm/php-fpm.conf": "[global]\nerror_log = /x\ninclude=/etc/php/8.2/fpm/pool.d/*.conf\n",
    "/etc/php/7.4/fpm/pool.d/huerto.conf": POOL.format(user="huerto"),
    "/etc/php/8.2/fpm/pool.d/radio.conf": POOL.format(user="radio"),
    "/etc/php/8.2/fpm/pool.d/libro.conf": POOL.format(user="libro"),
    "/home/huerto/public_html/wp-config.php": WORDPRESS,
    "/srv/sites/libro/public/sites/default/settings.php": DRUPAL,
    "/srv/sites/radio/web/index.php": "",
    "/srv/sites/teatro/web/index.php": "",
    "/var/lib/mysql/mysql/db.MYD": "",
    "/var/lib/mysql/huerto_wp/db.opt": "",
    "/var/lib/mysql/libro_d10/db.opt": "",
    "/var/lib/mysql/radio_emisora/db.opt": "",
    "/var/lib/mysql/tienda@002dvieja/db.opt": "",
    "/var/lib/mysql/lost+found/x": "",
    "/var/lib/mysql/ibdata1": "",
}  # fmt: skip
LINKS = {
    "/etc/apache2/sites-enabled/huerto.conf": "../sites-available/huerto.conf",
    "/etc/apache2/sites-enabled/macro.conf": "/etc/apache2/sites-available/macro.conf",
}  # fmt: skip


def write(root: Path, tree: dict[str, str], links: dict[str, str] | None = None) -> Path:
    for module in MODULES:
        load = f"LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so\n"
        tree = {f"/etc/apache2/mods-enabled/{module}.load": load, **tree}
    for path, text in tree.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for path, target in (links or {}).items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(target)
    return root


class Texts:
    """Files that are a dict: what the readers of configuration ask for, without a disk."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts

    def read(self, path: str) -> str | None:
        return self.texts.get(path)

    def glob(self, pattern: str) -> tuple[str, ...]:
        folders = {str(parent) for path in self.texts for parent in PurePosixPath(path).parents}
        return tuple(
            path for path in sorted({*self.texts, *folders}) if PurePosixPath(path).match(pattern)
        )

    def is_folder(self, path: str) -> bool:
        return any(known.startswith(f"{path}/") for known in self.texts)

    def exists(self, path: str) -> bool:
        return path in self.texts or self.is_folder(path)
